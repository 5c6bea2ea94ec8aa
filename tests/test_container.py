"""Containerfile, CITATION.cff and the forms of issues agree with the repository."""

import re
import tomllib
from pathlib import Path

import pytest

import rnndet

ROOT = Path(__file__).resolve().parent.parent
HOSTS = {"docker.io", "download.pytorch.org"}  # public ones, that everyone reaches


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def steps(instruction: str) -> list[str]:
    """The arguments of each instruction of this name, with continued lines joined."""
    text = re.sub(r"^#.*\n", "", read("Containerfile"), flags=re.M).replace("\\\n", " ")
    return [
        line.split(maxsplit=1)[1] for line in text.splitlines() if line.split()[:1] == [instruction]
    ]


def test_container_runs_inference_without_privileges():
    assert steps("ENTRYPOINT") == ['["rnndet", "infer"]']
    (user,) = steps("USER")
    assert int(user) > 1000 and f"useradd --uid {user}" in " ".join(steps("RUN"))


def test_user_may_write_to_the_working_directory():
    assert f"install --directory --owner rnndet {steps('WORKDIR')[0]}" in " ".join(steps("RUN"))


def test_build_runs_inference_once_after_the_installation():
    (step,) = [step for step in steps("RUN") if "/src[" in step]
    assert "&& rnndet infer --max-frames" in step.split("rm -rf /src")[1]


def test_every_command_with_a_folder_of_the_host_runs_as_its_owner():
    page = read("docs/container.md").replace("\\\n", " ")
    commands = [line for line in page.splitlines() if re.match("podman run.* -v ", line)]
    assert len(commands) == 3
    assert all('--user "$(id -u):$(id -g)"' in command for command in commands)


def test_every_file_that_is_copied_exists_and_reaches_the_build():
    copied = [name for step in steps("COPY") for name in step.split()[:-1]]
    assert {"rnndet", "weights", "configs", "pyproject.toml", "LICENSE", "NOTICE"} <= {*copied}
    assert all((ROOT / name).exists() for name in copied)
    sent = {line[1:] for line in read(".dockerignore").splitlines() if line.startswith("!")}
    assert sent == {*copied}


def test_extras_that_are_installed_exist():
    (names,) = re.findall(r"'/src\[(.+?)\]'", read("Containerfile"))
    extras = tomllib.loads(read("pyproject.toml"))["project"]["optional-dependencies"]
    assert {*names.split(",")} <= extras.keys()


def test_build_arguments_are_documented_with_their_defaults():
    page = read("docs/container.md")
    arguments = dict(step.split("=", 1) for step in steps("ARG"))
    assert arguments.keys() == {"BASE", "TORCH_INDEX"}
    for name, default in arguments.items():
        assert f"| `{name}` |" in page and f"`{default}` |" in page
    assert set(re.findall(r"--build-arg (\w+)=", page + read("Containerfile"))) == {*arguments}


@pytest.mark.parametrize("name", ["Containerfile", "docs/container.md"])
def test_only_public_hosts_are_named(name):
    hosts = re.findall(
        r"(?:https?://|\b)((?:[a-z0-9-]+\.)+(?:io|org|com|net|internal|local))\b", read(name)
    )
    assert hosts and {*hosts} <= HOSTS | {"nvidia.com"}  # a kind of device


def test_options_of_the_commands_exist():
    source = read("rnndet/cli/infer.py")
    for option in ("--isolate", "--device"):
        assert f'"{option}"' in source


def test_citation_has_the_required_keys_and_the_version():
    text = read("CITATION.cff")
    entries = dict(re.findall(r"^([a-z-]+): ?(.*)$", text, re.M))
    assert entries.keys() >= {"cff-version", "message", "title", "authors", "type", "license"}
    assert entries["cff-version"] == "1.2.0"
    assert entries["version"] == rnndet.__version__
    assert entries["license"] == tomllib.loads(read("pyproject.toml"))["project"]["license"]
    assert re.search(r"^authors:\n  - name: \S", text, re.M)


@pytest.mark.parametrize(
    "name", ["CITATION.cff", *(f".github/ISSUE_TEMPLATE/{n}.yml" for n in
             ("bug_report", "feature_request", "config"))],
)  # fmt: skip
def test_file_is_yaml(name):
    yaml = pytest.importorskip("yaml")
    assert isinstance(yaml.safe_load(read(name)), dict)


def test_bug_report_asks_for_the_output_of_the_doctor():
    text = read(".github/ISSUE_TEMPLATE/bug_report.yml")
    entry = text.split("id: doctor")[1].split("- type:")[0]
    assert "rnndet doctor" in entry and "required: true" in entry


@pytest.mark.parametrize("name", ["bug_report", "feature_request"])
def test_form_has_what_a_form_needs(name):
    text = read(f".github/ISSUE_TEMPLATE/{name}.yml")
    assert {"name", "description", "body"} <= {*re.findall(r"^(\w+):", text, re.M)}
    identifiers = re.findall(r"^    id: (\w+)$", text, re.M)
    assert len(identifiers) == len({*identifiers}) >= 4
