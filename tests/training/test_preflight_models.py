"""The models of a recipe are checked by their small files: in a folder, at a hub that answers, or in its cache."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import huggingface_hub.constants as hub_settings
import pytest
from omegaconf import DictConfig

from verl_air.errors import ConfigError
from verl_air.training.preflight import check_recipe
from verl_air.training.preflight.models import check_model

Compose = Callable[..., DictConfig]


class Hub:
    """A hub of one machine: serves ``folder/ORGANIZATION/NAME/FILE``, and notes what it was asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.files = folder, set[str]()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: Any) -> None:
                pass

            def do_HEAD(self) -> None:
                owner, name, *rest = self.path.split("?")[0].strip("/").removeprefix("api/models/").split("/")
                file = outer.folder / owner / name / "/".join(rest[2:])
                known = (outer.folder / owner / name).is_dir()
                is_info = known and self.path.startswith("/api/models/") and not rest
                content = file.read_bytes() if file.is_file() else json.dumps({"id": f"{owner}/{name}"}).encode()
                self.send_response(200 if file.is_file() or is_info else 404)
                if not file.is_file():
                    self.send_header("X-Error-Code", "EntryNotFound" if known else "RepoNotFound")
                self.send_header("X-Repo-Commit", "0" * 40)
                self.send_header("ETag", f'"{hash(content)}"')
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                if self.command == "GET":
                    outer.files.add(file.name)
                    self.wfile.write(content)

            do_GET = do_HEAD

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    running = Hub(tmp_path / "hub")
    monkeypatch.setattr(hub_settings, "ENDPOINT", running.url)
    monkeypatch.setattr(
        hub_settings, "HUGGINGFACE_CO_URL_TEMPLATE", running.url + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(hub_settings, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(hub_settings, "HF_HUB_OFFLINE", False)
    yield running
    running.close()


def edit(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def test_what_was_not_checked_is_said_at_the_start(compose: Compose, capsys: pytest.CaptureFixture[str]) -> None:
    assert check_recipe(compose("actor_rollout_ref.model.path=org/elsewhere")) is not None
    lines = capsys.readouterr().err.splitlines()
    assert "verl-air: actor_rollout_ref.model.path=org/elsewhere: its tokenizer, chat template, vocabulary" in lines[0]
    assert any(line.endswith("not checked: verl serves it, in training only (verdict_judge)") for line in lines)


def test_a_name_of_the_hub_is_checked_there_and_in_its_cache(
    compose: Compose, playground_files: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("fits", "base", "short"):
        shutil.copytree(playground_files / "model", hub.folder / "org" / name)
    (hub.folder / "org/base/chat_template.jinja").unlink()
    edit(hub.folder / "org/short/config.json", max_position_embeddings=64)

    def of(name: str, judge: str = "org/fits") -> DictConfig:
        return compose(f"actor_rollout_ref.model.path=org/{name}", f"reward.reward_model.model_path={judge}")

    assert check_model(of("fits")) == []
    assert "config.json" in hub.files
    assert not any("safetensors" in file for file in hub.files), "weights are not for a check"
    for name, message in {
        "base": r"model.path=org/base: its tokenizer has no chat template",
        "short": r"model.path=org/short: its context of 64 tokens is shorter than data.max_prompt_length \+ ",
        "none": r"model.path=org/none: no such folder, and no model of the hub",
    }.items():
        with pytest.raises(ConfigError, match=message) as fault:
            check_model(of(name))
        assert "\n" not in str(fault.value)
    with pytest.raises(ConfigError, match=r"model_path=org/short: its context of 64 .*rollout.max_model_len = 128"):
        check_model(of("fits", "org/short"))
    shutil.copytree(playground_files / "model", hub.folder / "org" / "late")
    hub.close()
    assert check_model(of("fits")) == [], "the cache serves"
    [note] = check_model(of("late"))
    assert note.startswith(
        "actor_rollout_ref.model.path=org/late: its tokenizer, chat template, vocabulary and context"
    )
    monkeypatch.setattr(hub_settings, "HF_HUB_OFFLINE", True)
    assert len(check_model(of("late", "org/late"))) == 2
