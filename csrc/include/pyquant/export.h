/* What the shared libraries show. Everything else is compiled with hidden visibility, so that two
 * copies of pyquant in one process (say, an embedded Python's and the server's own) do not meet. */
#ifndef PYQUANT_EXPORT_H
#define PYQUANT_EXPORT_H

/* The public interface: what the headers in pyquant/ declare. */
#define PYQUANT_API __attribute__((visibility("default")))

/* What pyquant's own libraries of engines take from the core. It may change in every release, and
 * its headers are not installed. */
#define PYQUANT_ENGINE_API __attribute__((visibility("default")))

#endif /* PYQUANT_EXPORT_H */
