"""What a package offers is listed, sorted and there."""

import pytest

import gblend
import schemas


@pytest.mark.parametrize("package", [gblend, schemas], ids=lambda package: package.__name__)
def test_the_public_names_are_sorted_and_exist(package):
    assert package.__all__ == sorted(
        package.__all__, key=lambda name: (not name.isupper(), not name[0].isupper(), name)
    )
    assert all(hasattr(package, name) for name in package.__all__)
