"""Thousands of odd command lines and damaged directories, judged in processes that may hang or die.

case.py       what is tried, as plain values       place.py, inputs.py   where: runs, hostile data, others' files
lines.py      right lines, spoilt ones and noise   judge.py    how a case has to end
hostile.py    lines for one kind of fault each     pool.py     workers, and the watchdog that ends what hangs
generate.py   all of them, the same every time     report.py   what was found, by kind, with commands that replay it
damage.py     a run or sweep with something wrong: anyfile.py, values.py (JSON, YAML, rows), checkpoints.py

`python -m tests.fuzz` tries everything and prints the report; `python -m tests.fuzz CASE` replays one case.
"""
