import shutil
import subprocess
from pathlib import Path

import pytest

from cellseg.git import git_commit, git_dirty


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_changes_of_tracked_files_make_a_checkout_dirty(tmp_path: Path) -> None:
    def git(*arguments: str) -> None:
        identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True)

    git("init")
    (tmp_path / "code.py").write_text("1")
    git("add", "code.py")
    git("commit", "-m", "first")
    (tmp_path / "notes.txt").write_text("not tracked")
    assert len(git_commit(tmp_path)) == 40
    assert git_dirty(tmp_path) == "false"
    (tmp_path / "code.py").write_text("2")
    assert git_dirty(tmp_path) == "true"


def test_without_repository_or_git_the_commit_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert (git_commit(tmp_path), git_dirty(tmp_path)) == ("unknown", "unknown")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert (git_commit(), git_dirty()) == ("unknown", "unknown")
