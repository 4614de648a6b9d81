"""How many images does one run need for the quality that another reaches? Both judged at all their checkpoints.

    python -m tests.bench.efficiency FEW MANY [--weights FILE] [--n 1000] [--json FILE] [--chart FILE.png]

FEW and MANY are run directories; each checkpoint of both is judged as by `gan eval run=RUN checkpoint=STEP n=1000
metrics=[fid,kid] metrics.kid.subset_size=100`, into RUN/eval; results that are there are not computed again. Prints the
curves, where FEW first passes the best checkpoint of MANY trained ten times as many images, and the factor: after how
many times FEW's images MANY is as good, by KID.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from gancli.cli import main as gan
from gancli.draw.charts import Panel, chart

TEN = 10  # how often MANY may see the images of FEW
Curve = list[dict[str, Any]]


def judged(run: Path, n: int, weights: str | None) -> Curve:
    """The results of a run's checkpoints, by images seen; those of step 0 are of an untrained G."""
    found = []
    for file in sorted((run / "checkpoints").glob("*[0-9].pt")):
        place = run / "curve" / file.stem
        if not (place / "results.json").is_file():
            words = [f"run={run}", f"checkpoint={int(file.stem)}", f"n={n}", "metrics=[fid,kid]", f"run_dir={place}"]
            words += ["metrics.kid.subset_size=100", *([f"extractor.weights={weights}"] if weights else [])]
            if gan(["eval", *words]):
                raise SystemExit(f"{run}: checkpoint {file.stem} could not be judged")
        result = json.loads((place / "results.json").read_text(encoding="utf-8"))
        about = result["protocol"]["fake"]
        found.append({"images": about["seen"], **{key: result[key] for key in ("fid", "kid", "intervals")}})
    return sorted(found, key=lambda row: row["images"])


def first_as_good(curve: Curve, kid: float) -> int | None:
    """The images after which a run's KID is first at or below this one."""
    return next((row["images"] for row in curve if row["kid"] <= kid), None)


def passes(few: Curve, many: Curve) -> dict[str, Any] | None:
    """The first checkpoint of FEW that is better than all of MANY up to ten times its images, if there is one."""
    for row in few:
        rivals = [other for other in many if 0 < other["images"] <= TEN * row["images"]]
        if row["images"] and rivals and row["kid"] < min(other["kid"] for other in rivals):
            return row
    return None


def factor(row: dict[str, Any], many: Curve) -> tuple[float, bool]:
    """How many times the images of a checkpoint MANY needs to be as good; whether it got there at all."""
    reached = first_as_good(many, row["kid"])
    return (reached or many[-1]["images"]) / row["images"], reached is not None


def drawn(few: Curve, many: Curve, names: tuple[str, str], file: Path) -> None:
    """Both measures over the images seen, as a picture."""
    panels = [
        Panel(
            key.upper(),
            {name: [(r["images"] / 1000, r[key]) for r in rows] for name, rows in zip(names, (few, many), strict=True)},
            x="thousands of real images seen",
            log=True,
        )
        for key in ("kid", "fid")
    ]
    Image.fromarray(np.asarray(chart(panels, 440, 300))).save(file)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("few", type=Path)
    parser.add_argument("many", type=Path)
    parser.add_argument("--weights")
    parser.add_argument("--n", type=int, default=1000)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--chart", type=Path)
    asked = parser.parse_args()
    few, many = (judged(run, asked.n, asked.weights) for run in (asked.few, asked.many))
    for run, rows in ((asked.few, few), (asked.many, many)):
        for row in rows:
            low, high = row["intervals"]["kid"]
            kid = f"KID {row['kid']:.4f} ({low:.4f} to {high:.4f})"
            print(f"{run.name}  {row['images']:>9,} images  {kid}  FID {row['fid']:.1f}")
    told: dict[str, Any] = {"few": few, "many": many, "n": asked.n}
    passed = passes(few, many)
    if passed is None:
        print(f"{asked.few.name} never passes the best of {asked.many.name} up to {TEN} times its images")
    else:
        times, reached = factor(passed, many)
        told |= {"passes_at": passed["images"], "factor": times, "reached": reached}
        how = f"needs {times:.1f} times as many" if reached else f"is not as good after {times:.1f} times as many"
        print(
            f"{asked.few.name} passes at {passed['images']:,} images (KID {passed['kid']:.4f}): {asked.many.name} {how}"
        )
    if asked.json:
        asked.json.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    if asked.chart:
        drawn(few, many, (asked.few.name, asked.many.name), asked.chart)


if __name__ == "__main__":
    main()
