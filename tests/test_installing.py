"""Installing: what `make setup` and `make demo` answer where something is missing, and the package's metadata."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent

# A Python whose `-m venv` makes an environment whose pip logs $PIP_SAYS and fails, or succeeds where that is empty.
PYTHON = """#!/bin/sh
[ "$2" = venv ] || exec "$REAL" "$@"
mkdir -p .venv/bin
cat > .venv/bin/python <<'END'
#!/bin/sh
while [ "$1" != --log ]; do shift; done
echo "$PIP_SAYS" > "$2"
[ -z "$PIP_SAYS" ]
END
cat > .venv/bin/gan <<'END'
#!/bin/sh
echo "$2 of $1: outputs/$1/x.png"
END
chmod +x .venv/bin/*
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what the Makefile needs, with a Python of its own."""
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / name)
    script(tmp_path / "python", PYTHON)
    return tmp_path


def script(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)
    return path


def make(folder: Path, *words: str, **env: str) -> tuple[int, list[str], list[str]]:
    """The exit code, what make printed, and what it said went wrong, without make's own line."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("MAKE")}
    env = {**kept, "REAL": sys.executable, "PIP_SAYS": "", "LC_ALL": "C", **env}
    done = subprocess.run(["make", *words], cwd=folder, env=env, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout.splitlines(), [w for w in done.stderr.splitlines() if "***" not in w]


def test_a_python_that_is_missing_old_or_without_venv_is_answered_in_a_line(checkout: Path) -> None:
    old = script(checkout / "old", f"""#!/bin/sh\nexec "{sys.executable}" -c "
import sys
sys.version_info = (3, 8, 1, 'final', 0)
exec(sys.argv[1])" "$2"\n""")  # fmt: skip
    bare = script(
        checkout / "bare", f'#!/bin/sh\ncase "$2" in *ensurepip*) exit 1;; esac\nexec "{sys.executable}" "$@"\n'
    )
    for python, said in {
        "nosuchpython": "there is no nosuchpython here: install Python 3.10 or newer, or type make demo"
        " PYTHON=/path/to/python3",
        str(old): f"gan needs Python 3.10 or newer, and {old} is 3.8: type make demo PYTHON=python3.12, or whichever"
        " newer one is installed",
        str(bare): f"{bare} cannot create environments: on Debian and Ubuntu type sudo apt install python3-venv, then"
        " make demo again",
    }.items():
        assert make(checkout, "demo", f"PYTHON={python}") == (2, [], [said])
    assert not (checkout / ".venv").exists()


def test_an_unreachable_index_is_answered_in_a_line_and_asked_again_the_next_time(checkout: Path) -> None:
    words = ["setup", f"PYTHON={checkout / 'python'}"]
    code, _, said = make(checkout, *words, PIP_SAYS="Retrying after connection broken by NewConnectionError")
    assert code == 2
    assert len(said) == 1
    assert said[0].startswith("pip could not reach a package index: behind a proxy set HTTPS_PROXY, ")
    assert said[0].endswith(f"`make setup PIP_NO_INDEX=1 PIP_FIND_LINKS={checkout}/wheels`")
    failed = (2, ["pip could not install the packages: its messages are above and in .venv/pip.log"])
    assert make(checkout, *words, PIP_SAYS="ERROR: No space left on device")[::2] == failed
    code, said, _ = make(checkout, *words)
    assert code == 0
    assert said[-1] == "Next: source .venv/bin/activate, which puts gan on your path, then gan --help"
    assert len(said) == 3
    assert make(checkout, *words)[1] == said[-1:]


def test_demo_lists_its_pictures_and_what_to_type_next(checkout: Path) -> None:
    code, said, wrong = make(checkout, "demo", f"PYTHON={checkout / 'python'}")
    assert (code, wrong) == (0, [])
    at = said.index("Look at these pictures:")
    assert said[at + 1 : at + 5] == [*(f"  outputs/{verb}/x.png" for verb in ("sample", *["interpolate"] * 2)), ""]
    assert said[at + 5] == "Next:"
    assert [line.split("  ")[1].strip() for line in said[at + 6 :]] == [
        "source .venv/bin/activate",
        "gan train experiment=photos dataset.root=FOLDER",
        "gan --guide",
    ]


def project() -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return found


def named(extra: str) -> set[str]:
    """The extras that an extra takes in."""
    found = [Requirement(each) for each in project()["optional-dependencies"][extra]]
    return {name for each in found if each.name == "gancli" for name in each.extras}


def test_all_takes_in_every_extra_but_dev() -> None:
    extras = project()["optional-dependencies"]
    assert named("all") == set(extras) - {"all", "dev"}
    assert named("dev") == named("all") - {"wandb", "mlflow"}
    assert all(Requirement(each).name == "gancli" for each in extras["all"])


def test_messages_name_extras_that_exist() -> None:
    texts = [f.read_text(encoding="utf-8") for top in ("gancli", "conf") for f in (ROOT / top).rglob("*.[py]*[yml]")]
    found = {name for text in texts for each in re.findall(r"gancli\[([a-z0-9,]+)\]", text) for name in each.split(",")}
    assert len(found) >= 10
    assert found <= set(project()["optional-dependencies"])


def test_the_oldest_python_is_the_same_wherever_it_is_named() -> None:
    oldest = project()["requires-python"].removeprefix(">=")
    classifiers = [c for c in project()["classifiers"] if re.search(r":: 3\.\d+$", c)]
    assert classifiers[0].endswith(oldest)
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert f"sys.version_info < ({oldest.replace('.', ', ')})" in makefile
    assert f"Python {oldest} or newer" in makefile
