"""What a package offers is listed, sorted and there."""

import inspect

import pytest

import gblend
import schemas


@pytest.mark.parametrize("package", [gblend, schemas], ids=lambda package: package.__name__)
def test_the_public_names_are_sorted_and_exist(package):
    assert package.__all__ == sorted(
        package.__all__, key=lambda name: (not name.isupper(), not name[0].isupper(), name)
    )
    assert all(hasattr(package, name) for name in package.__all__)


@pytest.mark.parametrize("package", [gblend, schemas], ids=lambda package: package.__name__)
def test_what_a_package_imports_under_a_public_name_is_listed(package):
    imported = {
        name for name, value in vars(package).items() if not name.startswith("_") and not inspect.ismodule(value)
    }
    assert imported - set(package.__all__) == set()
