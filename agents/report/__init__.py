"""`textenvs report`: what a run, several seeds of one, or a benchmark came to, as one page or as Markdown."""
