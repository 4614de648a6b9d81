"""A run as one page for the browser, and several runs beside each other: `python -m gancli.report RUN ...`."""
