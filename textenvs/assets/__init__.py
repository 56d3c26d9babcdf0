"""Data that the package ships, and the scripts that made it. README.md and manifest.json list every file."""
