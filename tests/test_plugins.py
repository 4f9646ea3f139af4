from __future__ import annotations

import sys

import pytest

from d2csr.errors import ConfigError
from d2csr.models import D2CSR
from d2csr.models.bodies import BODIES
from d2csr.plugins import import_plugins

BODY = """
from torch import nn
from d2csr.models import register_body

@register_body("plugin_body")
class PluginBody(nn.Conv2d):
    def __init__(self, features, kernel=3):
        super().__init__(features, features, kernel, padding=kernel // 2)
"""


@pytest.fixture(autouse=True)
def working_folder(tmp_path, monkeypatch):
    """An empty working folder; modules and search path are restored afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    return tmp_path


def test_a_module_of_the_working_folder_registers_its_body(working_folder):
    (working_folder / "plugin_a.py").write_text(BODY)
    import_plugins(["plugin_a"])
    model = D2CSR(2, 4, [2], 4, {"name": "plugin_body", "kernel": 5})
    assert model.settings["body"] == {"name": "plugin_body", "kernel": 5}
    assert model.divergence.bodies["1"].kernel_size == (5, 5)


def test_a_module_of_a_package_is_found_on_the_search_path(working_folder, monkeypatch):
    package = working_folder / "elsewhere" / "plugin_package"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "bodies.py").write_text(BODY)
    monkeypatch.syspath_prepend(package.parent)
    import_plugins(["plugin_package.bodies"])
    assert "plugin_body" in BODIES


def test_a_second_import_changes_nothing(working_folder):
    (working_folder / "plugin_b.py").write_text(BODY)
    import_plugins(["plugin_b"])
    first = BODIES["plugin_body"]
    import_plugins(["plugin_b"])
    assert BODIES["plugin_body"] is first


def test_without_plugins_the_search_path_is_unchanged():
    before = list(sys.path)
    import_plugins([])
    assert sys.path == before


@pytest.mark.parametrize("modules", ["plugin_a", [1], [None]])
def test_anything_but_a_list_of_names_is_refused(modules):
    with pytest.raises(ConfigError, match=r"^plugins: must be a list of module names"):
        import_plugins(modules)


def test_a_missing_module_is_named_with_the_place_that_was_searched(working_folder):
    with pytest.raises(ConfigError) as error:
        import_plugins(["plugin_missing"])
    assert f"plugins: no module 'plugin_missing' in {working_folder} or on PYTHONPATH" in str(error.value)


def test_a_missing_dependency_of_a_plugin_is_named(working_folder):
    (working_folder / "plugin_c.py").write_text("import not_installed_anywhere\n")
    with pytest.raises(ConfigError, match="plugin_c needs the module not_installed_anywhere"):
        import_plugins(["plugin_c"])


@pytest.mark.parametrize(
    ("code", "message"),
    [("x = 1\n1 / 0\n", r"plugin_d.py:2: ZeroDivisionError"), ("x = (\n", r"SyntaxError")],
)
def test_a_failing_import_is_located(code, message, working_folder):
    (working_folder / "plugin_d.py").write_text(code)
    with pytest.raises(ConfigError, match=rf"^plugins: the import of plugin_d failed: .*{message}"):
        import_plugins(["plugin_d"])


def test_a_name_that_is_taken_is_refused(working_folder):
    (working_folder / "plugin_e.py").write_text(BODY.replace('"plugin_body"', '"rcab"'))
    with pytest.raises(ConfigError, match=r"body\.name: 'rcab' is taken by d2csr\.models.bodies.rcab.RCABBody"):
        import_plugins(["plugin_e"])
