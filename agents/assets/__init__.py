"""The small pretrained language model that the package ships (`tiny/`), and the scripts that made it."""
