"""HTML pages of a run, and of several runs for comparison: `python -m gancli.report RUN ...`."""
