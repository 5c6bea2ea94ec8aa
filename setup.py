"""Put the shipped weights and recipes into the package; everything else is in pyproject.toml."""

from setuptools import find_packages, setup

SHIPPED = {  # folder of the repository, and the files of it that are installed as rnndet/FOLDER
    "weights": ["*.pt", "*.md", "weights.toml"],
    "configs": ["*.toml", "classes/*.toml"],
}

PAGE = {"rnndet.inference.writers.view": ["*.html", "*.css", "*.js"]}  # of --save html

setup(
    packages=[*find_packages(include=["rnndet*"]), *(f"rnndet.{folder}" for folder in SHIPPED)],
    package_dir={f"rnndet.{folder}": folder for folder in SHIPPED},
    package_data={f"rnndet.{folder}": files for folder, files in SHIPPED.items()} | PAGE,
)
