"""Find the files that travel with rnndet: the weights, the training recipes and class maps."""

from pathlib import Path

from rnndet.errors import RnndetError
from rnndet.registry import nearest_hint

PACKAGE = Path(__file__).resolve().parent.parent  # .../rnndet


def shipped_folder(name: str) -> Path:
    """Return the folder `weights` or `configs`.

    An installed package has them inside, as rnndet/weights and rnndet/configs; a checkout has them
    beside the package.

    >>> shipped_folder("configs").joinpath("aerial.toml").is_file()
    True
    """
    inside = PACKAGE / name
    return inside if inside.is_dir() else PACKAGE.parent / name


def recipe_names() -> list[str]:
    """Names of the shipped recipes, such as `aerial_fast` for configs/aerial_fast.toml."""
    return _names(shipped_folder("configs"))


def find_recipe(config: str) -> Path:
    """Return the path of a config file that is given as a path or as a shipped recipe's name.

    An existing file comes first. Raises RnndetError, with the nearest name.

    >>> find_recipe("aerial_fast").name
    'aerial_fast.toml'
    """
    return _find(config, shipped_folder("configs"), file="config file", shipped="recipe")


def find_class_map(name: str) -> Path:
    """Return the path of a class map that is given as a path or as a shipped one's name.

    An existing file comes first. Raises RnndetError, with the nearest name.

    >>> find_class_map("coco_to_vid").name
    'coco_to_vid.toml'
    """
    folder = shipped_folder("configs") / "classes"
    return _find(name, folder, file="file", shipped="class map")


def _find(text: str, folder: Path, *, file: str, shipped: str) -> Path:
    """Find a TOML file by its path or its name in `folder`; file, shipped: what the two are."""
    path, names = Path(text), _names(folder)
    if text in names and not path.is_file():
        return folder / f"{text}.toml"
    if path.exists():
        return path
    raise RnndetError(
        f"{text}: neither a {file} nor a shipped {shipped}; "
        f"{nearest_hint(path.stem, names)}{shipped}s: {', '.join(names)}"
    )


def _names(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.glob("*.toml"))
