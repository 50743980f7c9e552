"""How Sphinx makes the manual; `make docs`."""

from airflow_provider_vidu import __version__

project = "airflow-provider-vidu"
author = "the maintainers of airflow-provider-vidu"
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
html_theme = "alabaster"
html_theme_options = {"description": "AI-video generations on Airflow", "page_width": "1080px"}

myst_heading_anchors = 3  # so that pages can link to each other's sections

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the docstrings say what a parameter takes
