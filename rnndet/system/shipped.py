"""Find the files that travel with rnndet: the weights and the training recipes."""

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
    return sorted(path.stem for path in shipped_folder("configs").glob("*.toml"))


def find_recipe(config: str) -> Path:
    """Return the path of a config file that is given as a path or as a shipped recipe's name.

    An existing file comes first. Raises RnndetError, with the nearest name.

    >>> find_recipe("aerial_fast").name
    'aerial_fast.toml'
    """
    path, names = Path(config), recipe_names()
    if config in names and not path.is_file():
        return shipped_folder("configs") / f"{config}.toml"
    if path.exists():
        return path
    raise RnndetError(
        f"{config}: neither a config file nor a shipped recipe; "
        f"{nearest_hint(path.stem, names)}recipes: {', '.join(names)}"
    )
