"""Wrong command lines: exit code 2, one line that names the remedy, and nothing written."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.conftest import TINY, Gan

# What is typed, and what the answer has to say. {run}: a trained run; {hurt}: one whose last checkpoint is cut short.
WRONG = [
    ("trian", "did you mean train?"),
    ("evaluate run=last", "did you mean eval?"),
    ("train --fast", "unknown flag --fast"),
    ("train --cfg everything", "--cfg job"),
    ("train stpes=3", "did you mean steps?"),
    ("train Steps=3", "did you mean steps?"),
    ("train batchsize=3", "did you mean batch_size?"),
    ("train lr=1e-3", "did you mean optimizer.G.lr?"),
    ("train optimizer.G.rl=1", "did you mean optimizer.G.lr?"),
    ("train optimizer.g.lr=1", "did you mean optimizer.G?"),
    ("train observers.checkpoint.every=5", "did you mean observers.checkpoints?"),
    ("train dataset.szie=32", "did you mean dataset.size?"),
    ("train los=hinge", "did you mean loss?"),
    ("train loss=hinje", "did you mean hinge?"),
    ("train model=dcgna", "did you mean dcgan?"),
    ("train dataset=fashon", "did you mean fashion?"),
    ("train penalty=wgangp", "did you mean wgan_gp?"),
    ("train penalty=[r1,clipp]", "did you mean clip?"),
    ("train optimizer=adm", "did you mean adam?"),
    ("train device=gpu", "choices: auto, cpu, cuda, mps"),
    ("train precision=half", "choices: auto, bf16, fp16, fp32"),
    ("train steps=abc", "expected a whole number"),
    ("train steps=1.5", "expected a whole number"),
    ("train steps=-1", "must be at least 0"),
    ("train batch_size=0", "must be at least 1"),
    ("train compile=maybe", "expected true or false"),
    ("train optimizer.G.lr=fast", "expected a number"),
    ("train optimizer.G.lr=-1", "optimizer.G"),
    ("train optimizer.D.betas=[0.5]", "optimizer.D.betas"),
    ("train optimizer.schedule.kind=cosine", "expected one of constant, linear"),
    ("train dataset.size=big", "dataset.size=big: expected"),
    ("train dataset.size=[1,4,4]", "8"),
    ("train dataset.split=validation", "split"),
    ("train model.latent.dim=0", "at least 1 number"),
    ("train model.ema.decay=2", "decay in [0, 1)"),
    ("train model.latent.kind=cauchy", "expected one of normal, uniform"),
    ("train game.d_steps=0", "at least 1"),
    ("train +loss.margin=3", "unknown key loss.margin"),
    ("train ++stepz=3", "did you mean steps?"),
    ("train +penalty=r1", "write penalty=r1"),
    ("train loss", "write key=value"),
    ("train note='open", "put the value in quotes"),
    ("train steps=1,2", "add -m"),
    ("train -m steps=1,x", "expected a whole number"),
    ("train loss._target_=os.system", "can be built"),
    ("train dataset._target_=gancli.data.folder.os", "not a part that dataset can build"),
    ("train loss._target_=gancli.losses.penalties.R1", "not a part that loss can build"),
    ("train model.G._target_=gancli.metrics.weights.fetched", "only parts of gancli.nets"),
    ("train model=[dcgan,sngan]", "one model at a time"),
    ("train model=mlp ~model.G", "missing key model.G"),
    ("train model.G=null", "model.G"),
    ("train ~model.name", "model.name"),
    ("train model.name=../x", "model.name"),
    ("train model@foo=dcgan", "model@foo"),
    ("train optimizer.G.betas=[a,b]", "expected 2 numbers"),
    ("train +optimizer.G.fused=true +optimizer.G.foreach=true", "optimizer.G"),
    ("train max_time=nan", "max_time"),
    ("train optimizer.clip=nan", "optimizer.clip"),
    ("train penalty=r1 penalty.r1.weight=nan", "weight >= 0"),
    ("train penalty=clip +penalty.clip.every=0", "every >= 1"),
    ("train penalty=wgan_gp penalty.wgan_gp.weight=0 loss=wasserstein", "penalty="),
    ("train run_dir=", "run_dir="),
    ("train -m steps=1,2 run_dir=both", "shared by all jobs"),
    ("train -m --cfg job seed=1,2", "--cfg"),
    ("train --cfg job --package nope", "--package nope"),
    ("train --config-dir", "name a folder"),
    ("train resume={run} run_dir=elsewhere", "leave run_dir out"),
    ("train resume={odd} steps=9", "run.json"),
    ("sample run={odd} seed=1", "damaged"),
    ("sample run={run}/run.json", "no checkpoint"),
    ("sample run={run}/checkpoints/00000004.pt checkpoint=2", "leave checkpoint=2 out"),
    ("sample run={run} run_dir=empty/file", "is a file"),
    ("sample run={run} seeds=0-99999999999", "a million"),
    ("sample run={run} seeds=²", "0-15"),
    ("eval run=nowhere", "no such run"),
    ("eval run={run} run_dir={run}", "holds a run already"),
    ("eval run={run} reference=nope", "reference=nope"),
    ("train model=dcgan loss=wasserstein", "penalty=wgan_gp"),
    ("train penalty=wgan_gp model.D.norm=batch", "model.D.norm=auto"),
    ("train model=sngan penalty=clip", "spectral norm"),
    ("train model=dcgan dataset=ring", "model=mlp"),
    ("train precision=fp16 device=cpu", "precision=fp32"),
    ("train device=cuda", "device=cpu"),
    ("train dataset=folder", "dataset.root"),
    ("train dataset=folder dataset.root=nowhere", "dataset.root"),
    ("train dataset=folder dataset.root=empty", "empty"),
    ("train dataset=folder dataset.root=corrupt dataset.size=8", "bad.png"),
    ("train dataset=npz dataset.root=corrupt/bad.png", "bad.png"),
    ("train dataset=folder dataset.root=corrupt dataset.check=never", "expected one of auto, quick, full"),
    ("train dataset=folder dataset.root=corrupt dataset.store=jpeg", "expected one of raw, encoded"),
    ("train dataset=zip", "dataset.root=FILE.zip"),
    ("train dataset=zip dataset.root=corrupt", "dataset=folder"),
    ("train dataset=zip dataset.root=corrupt/bad.png", "cannot be read as a zip archive"),
    ("train dataset=webdataset", "dataset.root="),
    ("train dataset=webdataset dataset.root=pipe:ls", "this machine's disks only"),
    ("train dataset=webdataset dataset.root=x-{{0..1}}.tar", "x-0.tar does not exist"),
    ("train dataset=hub", "dataset.root=OWNER/NAME"),
    ("train dataset=hub dataset.root=./nowhere", "is no folder"),
    ("train dataset=cifar10 dataset.root=empty", "dataset.download=true"),
    ("train resume=nowhere", "no such run"),
    ("train resume=last", "no run under"),
    ("train resume={run}", "steps=N"),
    ("train resume={run} steps=9 loss=hinge", "loss._target_"),
    ("train init=nowhere", "no such run"),
    ("train init={run} model.ch=8", "do not fit"),
    ("train run_dir={run}", "resume="),
    ("train run_dir=empty/file/below", "run_dir"),
    ("train --config-dir nowhere", "no such folder"),
    ("sample", "gan train"),
    ("sample run=nowhere", "no such run"),
    ("sample run=empty", "run.json"),
    ("sample run={run} checkpoint=3", "0, 2, 4, 6"),
    ("sample run={run} checkpoint=best", "gan eval"),
    ("sample run={run} n=0", "at least 1"),
    ("sample run={run} format=jpg", "grid, png, npz"),
    ("sample run={run} seeds=5-1", "0-15"),
    ("sample run={run} classes=dog", "classes"),
    ("sample run={run} truncation=0", "0.5"),
    ("sample run={run} steps=3", "unknown key steps"),
    ("sample run={hurt}", "damaged"),
    ("sample run={hurt}/checkpoints/00000006.pt", "damaged"),
    ("sample run=corrupt/bad.png", "bad.png"),
    ("interpolate run={run} mode=circle", "slerp, lerp"),
    ("interpolate run={run} axis=class", "model.conditioning=projection"),
    ("interpolate run={run} axis=y", "z, class, both"),
    ("interpolate run={run} classes=1", "knows no classes"),
    ("sample run={run} classes=all", "knows no classes"),
    ("sample run={run} attention=true", "model.attention=[16]"),
    ("sample run={run} points=[[0.5,0.5]]", "attention=true"),
    ("sample run={run} attention=true points=[[0.5,2]]", "points=[[0.5,0.5]]"),
    ("sample run={run} attention=true points=[]", "at least one point"),
    ("sample run={run} attention=true format=npz", "leave format out"),
    ("sample run={run} arithmetic=3,7", "spaces around + and -"),
    ("sample run={run} arithmetic=a+-+b", "arithmetic="),
    ("sample run={run} arithmetic=3 attention=true", "one at a time"),
    ("sample run={run} serve=maybe", "expected true or false"),
    ("sample run={run} host=0.0.0.0", "add serve=true"),
    ("sample run={run} open=false port=80", "add serve=true"),
    ("sample run={run} serve=true port=70000", "up to 65535"),
    ("sample run={run} serve=true host=256.0.0.1", "host=0.0.0.0"),
    ("sample run={run} serve=true host=192.0.2.1", "host=127.0.0.1"),
    ("sample run={run} serve=true format=npz", "leave format out"),
    ("sample run={run} serve=true run_dir=page", "leave run_dir out"),
    ("sample run={run} serve=true seeds=0-3", "one seed"),
    ("sample run={run} serve=true n=300", "at most 256"),
    ("sample run={run} serve=true classes=all", "knows no classes"),
    ("sample run=nowhere serve=true", "no such run"),
    ("interpolate run={run} frames=1", "at least 2"),
    ("eval run={run} metrics=[fid,kdi]", "did you mean kid?"),
    ("eval run={run} metrics=[]", "metrics"),
    ("eval input=corrupt", "reference=FOLDER"),
    ("eval run={run} extractor.weights=nowhere.pth", "nowhere.pth"),
    ("eval run={run} n=1", "at least 2"),
    ("eval run={run} truncation=[0.5,0]", "a threshold above 0"),
    ("eval run={run} truncation=[]", "at least one threshold"),
    ("eval run={run} truncation=[a]", "truncation"),
    ("eval input=corrupt reference=corrupt truncation=[1,2]", "run="),
    ("eval run={run} metrics=[class_accuracy]", "model.conditioning=projection"),
    ("eval input=corrupt reference=corrupt metrics=[class_accuracy]", "run="),
    ("eval run={run} metrics=[class_accuracy] metrics.class_accuracy.images=0", "at least 1"),
    ("train model=biggan dataset=random dataset.classes=0", "model.conditioning=none"),
    ("train model=biggan dataset.size=30", "28 32"),
    ("train model=biggan model.attention=[7]", "feature maps of 8, 16, 32"),
    ("train model=biggan model.latent.dim=81", "multiple of 4"),
    ("train model=biggan model.shared=0", "model.shared=128"),
    ("train model=biggan model.conditioning=acgan", "expected one of none, input, hidden, ac, projection"),
    ("train model=biggan_deep model.conditioning=hidden", "expected one of none, ac, projection"),
    ("train model=dcgan model.latent.dim=null", "set a number"),
    ("train model=biggan game.class_weight=-1", "game.class_weight"),
]  # fmt: skip


@pytest.fixture
def corner(tmp_path: Path, trained: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Things that are wrong in their own way: an empty folder, a corrupt image, a checkpoint cut short."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "file").write_text("")
    (tmp_path / "corrupt").mkdir()
    (tmp_path / "corrupt" / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"nothing" * 9)
    shutil.copytree(trained, tmp_path / "hurt")
    last = tmp_path / "hurt" / "checkpoints" / "00000006.pt"
    last.write_bytes(last.read_bytes()[:-200])
    shutil.copytree(trained, tmp_path / "odd")
    (tmp_path / "odd" / "run.json").write_text("3")
    for path in (tmp_path / "odd" / "checkpoints").glob("*.json"):
        path.write_text("[1]")
    return {"run": str(trained), "hurt": str(tmp_path / "hurt"), "odd": str(tmp_path / "odd")}


def snapshot(*folders: Path) -> dict[Path, int]:
    return {p: p.stat().st_mtime_ns for folder in folders for p in folder.rglob("*")}


@pytest.mark.parametrize(("typed", "remedy"), WRONG, ids=[typed for typed, _ in WRONG])
def test_wrong_command(gan: Gan, corner: dict[str, str], trained: Path, typed: str, remedy: str) -> None:
    before = snapshot(Path.cwd(), trained)
    words = typed.format(**corner).split(" ")
    if "init={run}" in typed:
        words += [w for w in TINY if not w.startswith("model.ch")]
    answer = gan(*words)
    assert answer.code == 2, answer
    assert answer.out == ""
    assert answer.err.startswith("gan: ")
    assert answer.err.count("\n") == 1
    assert remedy in answer.err
    assert "Traceback" not in answer.err
    assert snapshot(Path.cwd(), trained) == before


def test_there_are_enough_of_them() -> None:
    assert len(WRONG) >= 50
    assert len(set(WRONG)) == len(WRONG)
