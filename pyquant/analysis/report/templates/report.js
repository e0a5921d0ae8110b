"use strict";

// Theme: automatic, light, dark. A page opened from a file may have no storage.
const root = document.documentElement, themeButton = document.getElementById("theme");
const themes = { "": "auto", light: "light", dark: "dark" };
function stored(action) {
  try { return action(window.localStorage); } catch { return null; }
}
function setTheme(name) {
  if (name) root.dataset.theme = name; else delete root.dataset.theme;
  themeButton.textContent = "Theme: " + themes[name];
}
const remembered = stored(storage => storage.getItem("pyquant-theme"));
setTheme(Object.hasOwn(themes, remembered) ? remembered : "");
themeButton.addEventListener("click", () => {
  const names = Object.keys(themes);
  const next = names[(names.indexOf(root.dataset.theme || "") + 1) % names.length];
  setTheme(next);
  stored(storage => storage.setItem("pyquant-theme", next));
});

// Sorting: by numbers where a cell has one, else by text; cells without a number stay last.
function sortKey(group, column) {
  const cell = (group.rows ? group.rows[0] : group).cells[column];
  const key = cell.dataset.key;
  if (key === undefined) return cell.textContent.trim();
  return key === "" ? null : Number(key);
}
function compare(a, b) {
  return typeof a === "number" ? (a < b ? -1 : a > b ? 1 : 0)
    : a.localeCompare(b, undefined, { numeric: true });
}
function sortBy(table, header) {
  const descending = header.getAttribute("aria-sort") === "ascending";
  for (const other of header.parentNode.cells) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", descending ? "descending" : "ascending");
  // A layer is a tbody of two rows; in the other tables every row is by itself.
  const byBody = table.tBodies.length > 1;
  const groups = byBody ? [...table.tBodies] : [...table.tBodies[0].rows];
  const keyed = groups.map(group => [sortKey(group, header.cellIndex), group]);
  keyed.sort(([a], [b]) => {
    if (a === null || b === null) return (a === null) - (b === null);
    return descending ? compare(b, a) : compare(a, b);
  });
  const parent = byBody ? table : table.tBodies[0];
  parent.append(...keyed.map(([, group]) => group));
}
for (const table of document.querySelectorAll("table.sortable")) {
  for (const button of table.tHead.querySelectorAll("button")) {
    button.addEventListener("click", () => sortBy(table, button.parentNode));
  }
}

// Layers: search, filter, details.
const layers = [...document.querySelectorAll("tbody.layer")];
const search = document.getElementById("search"), filter = document.getElementById("filter");
const searchable = new Map(layers.map(layer => {
  const cells = layer.rows[0].cells;
  return [layer, (cells[1].textContent + " " + cells[2].textContent).toLowerCase()];
}));
function show() {
  const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
  let count = 0;
  for (const layer of layers) {
    const flags = layer.dataset.flags.split(" ");
    const text = searchable.get(layer);
    layer.hidden = !(words.every(word => text.includes(word)) && (!filter.value || flags.includes(filter.value)));
    count += !layer.hidden;
  }
  document.getElementById("shown").textContent = `${count} of ${layers.length}`;
}
search.addEventListener("input", show);
filter.addEventListener("change", show);

function open(layer, wanted) {
  layer.rows[1].hidden = !wanted;
  layer.classList.toggle("opened", wanted);
  layer.querySelector(".open").setAttribute("aria-expanded", String(wanted));
}
for (const layer of layers) {
  layer.rows[0].addEventListener("click", () => {
    if (String(window.getSelection())) return; // someone copies a name
    open(layer, layer.rows[1].hidden);
  });
}
function openFromAddress() {
  const layer = document.getElementById(window.location.hash.slice(1));
  if (!layers.includes(layer)) return;
  if (layer.hidden) {
    search.value = filter.value = "";
    show();
  }
  open(layer, true);
  layer.scrollIntoView({ block: "start" });
}
window.addEventListener("hashchange", openFromAddress);
document.addEventListener("click", event => {
  // A link to the layer that the address already names changes nothing, and should still open it.
  const link = event.target.closest('a[href^="#layer-"]');
  if (link && link.hash === window.location.hash) openFromAddress();
});
openFromAddress();

// Charts: a tooltip, and a click that leads to the layer.
const tip = document.getElementById("tip");
function placeTip(event) {
  const mark = event.target.closest ? event.target.closest("[data-tip]") : null;
  tip.hidden = !mark;
  if (!mark) return;
  tip.textContent = mark.dataset.tip;
  const box = tip.getBoundingClientRect(), gap = 14;
  const right = event.clientX + gap + box.width > root.clientWidth;
  tip.style.left = Math.max(4, right ? event.clientX - gap - box.width : event.clientX + gap) + "px";
  tip.style.top = Math.max(4, event.clientY - box.height - gap) + "px";
}
document.addEventListener("pointermove", placeTip);
document.addEventListener("pointerdown", placeTip);
window.addEventListener("scroll", () => { tip.hidden = true; }, { passive: true });
for (const mark of document.querySelectorAll("[data-layer]")) {
  mark.addEventListener("click", () => {
    const address = "#layer-" + mark.dataset.layer;
    if (window.location.hash === address) openFromAddress(); else window.location.hash = address;
  });
}
