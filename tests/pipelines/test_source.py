import os

import pytest

from pipelines.source import MissingFileError, NotAFileError, OutsideRootError, resolve
from tests.media import steady, write_media


@pytest.mark.parametrize("uri", ["../secret.mp4", "a/../../secret.mp4", "/etc/passwd", "a\\..\\b.mp4", "x\0.mp4"])
def test_a_path_that_leaves_the_root_is_refused(tmp_path, uri):
    with pytest.raises(OutsideRootError):
        resolve(str(tmp_path), uri)


def test_a_link_out_of_the_root_is_refused_and_one_inside_is_followed(tmp_path):
    root = tmp_path / "root"
    inside = write_media(root / "v.mkv", pts_s=steady(0.2))
    outside = write_media(tmp_path / "secret.mkv", pts_s=steady(0.2))
    (root / "out.mkv").symlink_to(outside)
    (root / "in.mkv").symlink_to(inside)
    assert resolve(str(root), "in.mkv") == str(inside.resolve())
    with pytest.raises(OutsideRootError, match="link"):
        resolve(str(root), "out.mkv")


def test_what_is_not_a_regular_file_is_never_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "folder.mp4").mkdir()
    for name in ("pipe.mp4", "folder.mp4"):
        with pytest.raises(NotAFileError):
            resolve(str(tmp_path), name)
    with pytest.raises(MissingFileError, match=r"nothing\.mp4"):
        resolve(str(tmp_path), "nothing.mp4")


def test_a_path_that_nothing_can_be_at_is_missing_and_not_tried_for_ever(tmp_path):
    (tmp_path / "file.mp4").write_bytes(b"x")
    for uri in ("a" * 300 + ".mp4", "file.mp4/b.mp4"):
        with pytest.raises(MissingFileError):
            resolve(str(tmp_path), uri)
