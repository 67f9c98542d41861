"""Which files of a kernel's modules have to be loaded, and in which order.

Pure. Source: modules.dep(5) and the file modules.dep itself: ``path: path path``, what is needed last comes first.
"""

from collections.abc import Iterable


def dependencies(modules_dep: str) -> dict[str, list[str]]:
    """Return path -> paths of what it needs, in the order of loading."""
    found = {}
    for line in modules_dep.splitlines():
        path, _, needed = line.partition(":")
        found[path] = needed.split()[::-1]
    return found


def name_of(path: str) -> str:
    """Return the module's name: the file's without its endings, as the kernel says it."""
    return path.rpartition("/")[2].partition(".ko")[0].replace("-", "_")


def in_order(modules_dep: str, wanted: Iterable[str]) -> list[str]:
    """Return the files of the modules *wanted* and of what they need; what is built in is not among them."""
    needed = dependencies(modules_dep)
    by_name = {name_of(path): path for path in needed}
    order: list[str] = []
    for name in wanted:
        if path := by_name.get(name.replace("-", "_")):
            order += [one for one in (*needed[path], path) if one not in order]
    return order
