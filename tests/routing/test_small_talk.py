"""With the configuration of the README, nobody pays for a thought about a greeting."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from gateway.openai_api.endpoints import CHAT
from gateway.openai_api.requests import parse_chat
from gateway.snapshot import Snapshot

README = Path(__file__).parents[2] / "README.md"

SMALL_TALK = {
    "Arabic": "مرحبا",
    "Bengali": "আপনি কেমন আছেন?",
    "Chinese": "你好",
    "Czech": "Děkuji moc!",
    "Dutch": "Hoe gaat het met je?",
    "English": "ok thanks",
    "Finnish": "Hyvää huomenta",
    "French": "Bonjour, ça va ?",
    "German": "Guten Morgen, wie geht es dir heute?",
    "Greek": "Ευχαριστώ πολύ",
    "Hebrew": "תודה רבה",
    "Hindi": "शुक्रिया",
    "Hungarian": "Köszönöm szépen",
    "Indonesian": "Selamat pagi, apa kabar?",
    "Italian": "Ciao, come stai?",
    "Japanese": "こんにちは",
    "Korean": "감사합니다",
    "Polish": "Dziękuję bardzo",
    "Portuguese": "Obrigado pela ajuda!",
    "Russian": "Привет, как дела?",
    "Spanish": "¿Qué tal?",
    "Swahili": "Habari ya asubuhi",
    "Swedish": "Tack så mycket",
    "Thai": "สวัสดีครับ",
    "Turkish": "Teşekkürler",
    "Ukrainian": "Дякую!",
    "Vietnamese": "Cảm ơn bạn",
}
EASY = ["hi", "hello", "Thanks!", "What is the capital of France?", "What is 17 * 23?", "Good night :)", "👍"]


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    """The README's configuration, with the shipped head at the default price."""
    found = re.search(r"```yaml\n# gateway.yaml\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert found
    path = tmp_path_factory.mktemp("readme") / "gateway.yaml"
    path.write_text(found[1])
    return Snapshot.load(path)


def decided(snapshot: Snapshot, text: str) -> tuple[str, str]:
    """Tier and reason for a prompt."""
    body = {"model": "qwen3-8b", "messages": [{"role": "user", "content": text}]}
    call = snapshot.call(CHAT, None, {}, parse_chat(json.dumps(body).encode()))
    decision = snapshot.router.route(call, price=snapshot.settings.price).decision
    return decision.tier, decision.reason


@pytest.mark.parametrize("text", [*SMALL_TALK.values(), *EASY], ids=[*SMALL_TALK, *EASY])
def test_small_talk_gets_direct(snapshot: Snapshot, text: str) -> None:
    """A greeting, a thank-you or a trivial question gets `direct`, in any language."""
    assert decided(snapshot, text) == ("direct", "prior")


def test_other_prompts_may_think(snapshot: Snapshot) -> None:
    """The prior does not simply switch thinking off: code that answers at once often get wrong may think."""
    text = (
        "def f(xs):\n    return sorted(xs)[len(xs)//2]\n\nThis function should return the median but fails"
        " for even lengths. Fix it and add tests."
    )
    assert decided(snapshot, text) == ("long", "prior")
