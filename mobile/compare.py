"""Whether a target's outputs are the Program's: the one criterion, used by export and verify.

Every engine rounds at the same places, but not always to the same side: QNNPACK multiplies by
``1 / s_y`` where the Program divides, and QNNPACK and XNNPACK add in fixed point. That moves about
one value in 200 000 by one step. What becomes of it depends on the network: a shallow or trained
one damps it, a deep one with random weights multiplies it (one moved input pixel of such a
MobileNetV2 ends as 4.4 steps on average, all other layers being exact). So the Program is its own
yardstick, see :func:`tolerance`: how far do its outputs go if one input value in a thousand moves
by one step? Beyond a floor for networks that do not react at all, a target may differ by no more,
and never by so much that a wrong layout, bound, scale or weight order could hide in it (a
scrambled clamp gives cosine 0.53).

An output passes if its cosine with the golden one and its mean absolute difference are within the
tolerance, and if its best class is the same, unless the golden output itself holds the two classes
so near to each other that two tolerated differences overturn them. The mean finds a shift of all
outputs, to which the cosine may be blind. The largest difference is reported, not judged: on one
of a thousand outputs it says little.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pyquant.errors import ExportError
from pyquant.mobile.manifest import Difference, Tolerance

#: What every network is allowed, and what none is.
STRICT = Tolerance(mean_steps=2.0, cosine=0.995)
LOOSE = Tolerance(mean_steps=16.0, cosine=0.9)
_NUDGED = 997  # one value in so many


def tolerance(
    model: Callable[..., list[Tensor]],
    inputs: Sequence[Tensor],
    outputs: Sequence[Tensor],
    input_steps: Sequence[float],
    steps: Sequence[float],
) -> Tolerance:
    """What a target's outputs may differ by, measured on ``model`` itself.

    Args:
        model: Gives the golden ``outputs`` for the golden ``inputs`` (float32).
        inputs, outputs: As in the bundle.
        input_steps, steps: One quantization step of each input and output.
    """
    nudged = []
    for value, step in zip(inputs, input_steps, strict=True):
        moved = value.flatten().clone()
        moved[_NUDGED // 2 :: _NUDGED] += step
        nudged.append(moved.reshape(value.shape))
    reaction = worst(outputs, model(*nudged), steps)
    return Tolerance(
        mean_steps=min(max(reaction.mean_steps, STRICT.mean_steps), LOOSE.mean_steps),
        cosine=max(min(reaction.cosine, STRICT.cosine), LOOSE.cosine),
    )


def check_outputs(
    target: str,
    golden: Sequence[Tensor],
    actual: Sequence[Tensor],
    steps: Sequence[float],
    allowed: Tolerance,
) -> Difference:
    """The worst difference over all outputs (float32, of any shape).

    Raises :class:`ExportError` that names ``target`` and the numbers if one output fails.
    """
    if [value.shape for value in golden] != [value.shape for value in actual]:
        raise ExportError(
            f"the {target} file gives outputs of shapes {[tuple(v.shape) for v in actual]} "
            f"instead of {[tuple(v.shape) for v in golden]}"
        )
    found = worst(golden, actual, steps)
    same_class = all(
        _same_best_class(expected, value, 2 * allowed.mean_steps * step)
        for expected, value, step in zip(golden, actual, steps, strict=True)
    )
    agrees = found.cosine >= allowed.cosine and found.mean_steps <= allowed.mean_steps
    if not (agrees and same_class):
        raise ExportError(
            f"the {target} file disagrees with the quantized model: cosine {found.cosine:.4f} (at "
            f"least {allowed.cosine:.4f}), mean difference {found.mean_steps:.3f} steps (at most "
            f"{allowed.mean_steps:.3f}), largest {found.max_steps:.1f}, best class "
            + ("the same" if same_class else "another")
        )
    return found


def worst(golden: Sequence[Tensor], actual: Sequence[Tensor], steps: Sequence[float]) -> Difference:
    """The largest differences and the smallest cosine over all outputs."""
    results = [_difference(*triple) for triple in zip(golden, actual, steps, strict=True)]
    return Difference(
        max_steps=max(result.max_steps for result in results),
        mean_steps=max(result.mean_steps for result in results),
        cosine=min(result.cosine for result in results),
    )


def _difference(expected: Tensor, actual: Tensor, step: float) -> Difference:
    a, b = expected.double().flatten(), actual.double().flatten()
    if not b.isfinite().all():
        return Difference(max_steps=float("inf"), mean_steps=float("inf"), cosine=0.0)
    distance = (a - b).abs() / step
    norms = (a.norm() * b.norm()).item()
    # Two zero vectors are alike; a zero and another vector are not.
    cosine = torch.dot(a, b).item() / norms if norms else float(torch.equal(a, b))
    return Difference(
        max_steps=distance.max().item(), mean_steps=distance.mean().item(), cosine=min(cosine, 1.0)
    )


def _same_best_class(expected: Tensor, actual: Tensor, near_tie: float) -> bool:
    """For [N, classes] outputs; True for any other shape."""
    if expected.dim() != 2 or expected.shape[1] < 2:
        return True
    best = expected.max(dim=1).values
    chosen = expected.gather(1, actual.argmax(dim=1, keepdim=True)).squeeze(1)
    return bool((best - chosen <= near_tie).all())
