"""Settings of the documentation site; `make docs` builds it into build/docs."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

import d2csr

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = Path(__file__).parent / "notebooks"
if not NOTEBOOKS.exists():
    NOTEBOOKS.symlink_to("../notebooks")  # Sphinx reads only what is below its folder
sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "d2csr"
version = release = d2csr.__version__
copyright = "the contributors of d2csr, Apache-2.0"
root_doc = "index"
exclude_patterns = ["_ext", "notebooks/.ipynb_checkpoints", "notebooks/README.md"]
extensions = [
    "myst_nb",  # Markdown, and the notebooks
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "api_pages",
    "configuration_pages",
    "mathml",
    "repository_pages",
]

html_theme = "furo"
html_title = f"d2csr {release}"
html_math_renderer = "mathml"  # MathJax would be loaded from the network
html_copy_source = False
smartquotes_action = "D"  # dashes; quotes stay as they are
html_show_sphinx = False
html_static_path = ["_static"]
html_css_files = ["site.css"]
pygments_style = "tango"
pygments_dark_style = "github-dark"

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4  # with GitHub's names, so that links work there too

# Notebooks run once; build/notebooks keeps their outputs until a cell changes.
nb_execution_mode = "off" if os.environ.get("D2CSR_DOCS_NOTEBOOKS") else "cache"
nb_execution_cache_path = str(ROOT / "build" / "notebooks")
nb_execution_in_temp = True
nb_execution_timeout = 600  # seconds for a cell
nb_execution_raise_on_error = True
nb_ipywidgets_js = {}  # no notebook has widgets; their scripts are on the network
os.environ.setdefault("D2CSR_CHECKPOINT", str(ROOT / "runs" / "demo"))

# Packages of extras that the build may lack: the modules that import them are described all the same.
autodoc_mock_imports = [
    name
    for name in ("gradio", "huggingface_hub", "jinja2", "matplotlib", "onnx", "onnxruntime", "safetensors", "spandrel")
    if importlib.util.find_spec(name) is None
]
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "show-inheritance": True}
python_maximum_signature_line_length = 100
napoleon_use_rtype = False
napoleon_use_ivar = True  # attributes in a list: autodoc describes some of them too
suppress_warnings = ["config.cache"]

# With `sphinx-build -n` each reference has to lead somewhere. Those to other packages cannot: their inventories are on
# the network, and the build needs none.
nitpick_ignore_regex = [
    (r"py:.*", r"(?!d2csr\b).*"),
    (r"py:.*", r"d2csr\.(.*\.)?_\w+"),  # private names in signatures
    # Type variables.
    (r"py:class", r"d2csr\.(inference\.runner\.AnyImage|files\.(Item|Result))"),
]

linkcheck_timeout = 20
linkcheck_retries = 2
