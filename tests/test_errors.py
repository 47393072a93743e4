"""The error tree: one root, messages with a remedy."""

import inspect

import pytest

from foveal import errors


def test_every_error_has_the_one_root():
    for name in errors.__all__:
        kind = getattr(errors, name)
        if kind is not errors.FovealWarning:
            assert issubclass(kind, errors.FovealError)


def test_all_lists_every_class():
    classes = [name for name, _ in inspect.getmembers(errors, inspect.isclass)]
    assert sorted(classes) == sorted(errors.__all__) == errors.__all__


@pytest.mark.parametrize(
    ("kind", "parent"),
    [
        (errors.UnsupportedImageError, errors.InputError),
        (errors.UnsupportedVideoError, errors.InputError),
        (errors.TruncatedError, errors.FormatError),
        (errors.UnknownModelError, errors.FormatError),
        (errors.FovealWarning, UserWarning),
    ],
)
def test_branches_of_the_tree(kind, parent):
    assert issubclass(kind, parent)


def test_missing_extra_names_the_pip_line():
    message = str(errors.MissingExtraError.of("matplotlib", "bench"))
    assert "matplotlib" in message and "in Foveal's source folder: pip install '.[bench]'" in message
