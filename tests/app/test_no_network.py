"""A whole run opens no network connection, and no module of the program could ask for one."""

from __future__ import annotations

import ast
import socket
from pathlib import Path
from typing import Any

import pytest

import main
from tests.fakes import fake_method, tiny_scene

__all__ = ["fake_method", "tiny_scene"]
ROOT = Path(__file__).parents[2]
NETWORK = {"socket", "urllib", "http", "requests", "ftplib", "smtplib", "ssl", "aiohttp", "httpx"}
PICKLES = {"pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}


@pytest.mark.usefixtures("fake_method")
def test_a_run_opens_no_connection(
    tiny_scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def refuse(*arguments: Any) -> None:
        asked.append(arguments)
        raise OSError("no network in this test")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    out = str(tmp_path / "out")
    run = ["--headless", "--scene", str(tiny_scene), "--method", "fake", "--steps", "2"]
    assert main.main([*run, "--out", out]) == 0
    assert main.main(["--eval", out, "--protocol", "3dgs"]) == 0
    assert asked == []


def test_no_module_imports_the_network_or_pickles() -> None:
    found = []
    for path in [ROOT / "main.py", *ROOT.glob("app/**/*.py"), *ROOT.glob("render/**/*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = [node.module]
            used = {name.split(".")[0] for name in names}
            found += [f"{path}: {name}" for name in used & (NETWORK | PICKLES)]
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
                safe = any(k.arg == "weights_only" for k in node.keywords)
                found += [] if safe else [f"{path}: torch.load without weights_only"]
    assert found == []
