"""Our path and the naive path side by side in one run: `python -m xclip_module.benchmark [PART …]`."""
