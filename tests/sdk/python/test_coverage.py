"""What the packages export is used by the tests before these, or listed in not-covered.json with the reason."""

from importlib.metadata import version

import covered
import pytest

FEATURE = "methods: all used or listed"
PACKAGES = [
    pytest.param(name, marks=pytest.mark.shows(client=name, version=version(name), feature=FEATURE))
    for name in covered.MODULES
]


@pytest.mark.parametrize("package", PACKAGES)
def test_every_method_is_used_or_listed_as_not_covered(package):
    exported, listed = covered.exported(package), set(covered.NOT_COVERED[package])
    used = {method for owner, method in covered.covered_by_all() if owner == package}
    assert sorted(exported - listed - used) == [], "exported, neither used nor listed"
    assert sorted(listed & used) == [], "listed, but used"
    assert sorted(listed - exported) == [], "listed, but not exported"
    assert all(covered.NOT_COVERED[package].values()), "listed without a reason"
