"""Requests and answers of the server: shapes, errors as JSON, limits, the page."""

import html
import json
import logging
import re
import unicodedata
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from helpers.serving import LABELS, Lengths, open_lengths
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from loraft.delivery.batching import Limits
from loraft.delivery.server import Service
from loraft.evaluation.predict import Prediction
from loraft.models.calibration import Calibration


def client_of(models: dict[str, Lengths], **limits: Any) -> TestClient:
    return TestClient(Service(models, Limits(**limits)))


@pytest.fixture
def client() -> Iterator[TestClient]:
    models = {"cảm xúc": open_lengths(), "<b>&": open_lengths()}
    with client_of(models, body=2000, rows=3, characters=50) as made:
        yield made


def test_classify_has_the_shape_of_vllms_with_the_names_of_the_probabilities(client: TestClient) -> None:
    answer = client.post("/classify", json={"input": ["xxx", "x"]}).json()
    assert re.fullmatch(r"classify-[0-9a-f]{32}", answer.pop("id"))
    assert isinstance(answer.pop("created"), int)
    assert answer == {
        "object": "list",
        "model": "cảm xúc",
        "labels": list(LABELS),
        "data": [
            {"index": 0, "label": "tiêu cực", "probs": [0.75, 0.25], "num_classes": 2},
            {"index": 1, "label": "tiêu cực", "probs": [0.5, 0.5], "num_classes": 2},
        ],
        "usage": {"prompt_tokens": 204, "total_tokens": 204, "completion_tokens": 0},
    }


def test_one_text_is_a_list_of_one_and_a_model_is_chosen_by_its_name(client: TestClient) -> None:
    answer = client.post("/classify", json={"input": "x", "model": "<b>&"}).json()
    assert (answer["model"], len(answer["data"])) == ("<b>&", 1)
    assert client.post("/classify", json={"input": "x", "model": None}).json()["model"] == "cảm xúc"
    names = [one["id"] for one in client.get("/v1/models").json()["data"]]
    assert names == ["cảm xúc", "<b>&"]


def test_the_models_say_what_calibrates_their_probabilities() -> None:
    model = open_lengths()
    model.calibration = Calibration(1.5, (0.25, -0.25), 160, 157)
    with client_of({"a": model}) as client:
        (told,) = client.get("/v1/models").json()["data"]
    assert told["calibration"] == {"temperature": 1.5, "bias": [0.25, -0.25], "rows": 160, "set_aside": 157}


def test_several_labels_of_a_row_are_joined_as_predict_prints_them(monkeypatch: pytest.MonkeyPatch) -> None:
    model = open_lengths()
    found = Prediction(1, "x", LABELS, dict(zip(LABELS, (0.9, 0.8), strict=True)))
    monkeypatch.setattr(model, "predict", lambda texts: [found])
    with client_of({"a": model}) as client:
        (data,) = client.post("/classify", json={"input": "x"}).json()["data"]
    assert (data["label"], data["probs"]) == ("tiêu cực|tích cực", [0.9, 0.8])


def test_score_has_the_shape_of_sglangs(client: TestClient) -> None:
    answer = client.post("/v1/score", json={"items": ["xxx", "x"], "apply_softmax": True, "query": ""}).json()
    assert answer["object"] == "scoring"
    assert (answer["labels"], answer["scores"]) == (list(LABELS), [[0.75, 0.25], [0.5, 0.5]])


def test_texts_are_composed_and_stripped_as_those_of_files() -> None:
    model = open_lengths()
    with client_of({"a": model}) as client:
        client.post("/classify", json={"input": unicodedata.normalize("NFD", " thầy dạy hay\r\n ")})
    assert model.batches == [["thầy dạy hay"]]


JSON = "application/json"
WRONG: list[tuple[int, str, dict[str, Any]]] = [
    (415, r"content-type: not JSON \(got 'text/plain'\); send application/json",
     {"content": b'{"input": "x"}', "headers": {"content-type": "text/plain"}}),
    (400, "body: cannot be read as JSON", {"content": b"{", "headers": {"content-type": JSON}}),
    (400, "body: cannot be read as JSON", {"content": b'{"input": "\xff"}', "headers": {"content-type": JSON}}),
    (400, "body: cannot be read as JSON", {"content": b"[" * 1900, "headers": {"content-type": JSON}}),
    (400, "body: cannot be read as JSON",
     {"content": '{"input": "x"}'.encode("utf-16"), "headers": {"content-type": JSON}}),
    (422, r"body: not an object \(got \[1\]\)", {"json": [1]}),
    (422, r"input: not a text or a list of texts \(got None\)", {"json": {}}),
    (422, r"input: not a text or a list of texts \(got \[\]\)", {"json": {"input": []}}),
    (422, r"input\[1\]: no text", {"json": {"input": ["x", " "]}}),
    (422, r"input\[0\]: 'text' is not text \(got 3\)", {"json": {"input": [3]}}),
    (422, r"input\[0\]: holds half of a surrogate pair",
     {"content": b'{"input": "\\ud800"}', "headers": {"content-type": JSON}}),
    (404, "model: is not served \\(got 'lạ'\\); there are cảm xúc, <b>&", {"json": {"input": "x", "model": "lạ"}}),
    (404, r"model: is not served \(got \[\]\)", {"json": {"input": "x", "model": []}}),
    (413, r"input: too many texts \(got 4\); allowed: 3", {"json": {"input": ["x"] * 4}}),
    (413, r"input\[1\]: too long \(got 51 characters\); allowed: 50", {"json": {"input": ["x", "x" * 51]}}),
    (413, "body: longer than 2,000 bytes", {"json": {"input": "x" * 2000}}),
    (413, "body: longer than 2,000 bytes",
     {"content": b"{}", "headers": {"content-type": JSON, "content-length": "2001"}}),
    (422, r"use_activation: cannot be chosen \(got False\); leave it out",
     {"json": {"input": "x", "use_activation": False}}),
    (422, "truncate_prompt_tokens: cannot be chosen", {"json": {"input": "x", "truncate_prompt_tokens": 5}}),
]  # fmt: skip


@pytest.mark.parametrize(("code", "says", "sent"), WRONG, ids=lambda value: str(value)[:40])
def test_a_wrong_request_is_one_error_in_json(client: TestClient, code: int, says: str, sent: dict[str, Any]) -> None:
    answer = client.post("/classify", **sent)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (code, code)
    assert re.match(says, error["message"])
    assert "Traceback" not in answer.text


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=60),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=6,
)
KEYS = ("input", "items", "model", "query", "apply_softmax")
BODIES = st.fixed_dictionaries({}, optional=dict.fromkeys(KEYS, VALUES)) | VALUES


def test_no_body_breaks_the_server(client: TestClient) -> None:
    @settings(max_examples=60, deadline=None)
    @given(path=st.sampled_from(["/classify", "/v1/score"]), body=BODIES.map(json.dumps).map(str.encode) | st.binary())
    def check(path: str, body: bytes) -> None:
        answer = client.post(path, content=body, headers={"content-type": JSON})
        assert answer.status_code in (200, 400, 404, 413, 422)
        assert ("error" in answer.json()) == (answer.status_code != 200)

    check()


def test_other_paths_and_methods_are_json_errors_that_name_what_there_is(client: TestClient) -> None:
    wrong = client.get("/classify")
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "POST")
    assert "GET '/classify': Method Not Allowed; there are POST /classify" in wrong.json()["error"]["message"]
    assert client.get("/../etc/passwd").status_code == 404
    assert client.post("/classify/", json={"input": "x"}, follow_redirects=False).status_code == 404
    assert client.post("/v1/score", json={"items": "x", "apply_softmax": False}).status_code == 422
    metrics = client.get("/metrics").text
    assert 'loraft_requests_total{path="/classify",code="405"} 1\n' in metrics
    assert 'loraft_requests_total{path="other",code="404"} 2\n' in metrics


def test_an_error_in_the_model_is_told_without_the_sentence_and_logs_nothing(
    client: TestClient, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "loraft")
    answer = client.post("/classify", json={"input": "một lỗi bí mật"})
    assert (answer.status_code, answer.json()["error"]["message"]) == (500, "ValueError in the server")
    assert client.post("/classify", json={"input": "x"}).status_code == 200  # the worker goes on
    assert "bí mật" not in answer.text + "".join(capfd.readouterr()) + caplog.text


def test_a_full_queue_is_429_and_rows_that_wait_are_counted() -> None:
    model = Lengths()
    with client_of({"a": model}, queue=2) as client, ThreadPoolExecutor(2) as pool:
        computed = pool.submit(client.post, "/classify", json={"input": "x"})
        model.entered.wait(10)
        waiting = pool.submit(client.post, "/classify", json={"input": ["x", "y"]})
        while "loraft_queue_rows 2\n" not in client.get("/metrics").text:
            pass
        refused = client.post("/classify", json={"input": "z"})
        model.go.set()
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        assert [computed.result().status_code, waiting.result().status_code] == [200, 200]


def test_a_server_that_stops_answers_what_it_has_and_refuses_the_rest() -> None:
    model = Lengths()
    with client_of({"a": model}) as client, ThreadPoolExecutor(1) as pool:
        accepted = pool.submit(client.post, "/classify", json={"input": "x"})
        model.entered.wait(10)
        assert client.get("/healthz").json() == {"status": "ok"}
        client.app.stopping = True  # type: ignore[attr-defined]
        late = client.post("/classify", json={"input": "y"})
        model.go.set()
        assert accepted.result().status_code == 200
        assert (late.status_code, late.headers["connection"]) == (503, "close")
        assert client.get("/healthz").status_code == 503


def test_the_page_escapes_names_loads_nothing_and_lets_no_other_page_in(client: TestClient) -> None:
    answer = client.get("/")
    page, policy = answer.text, answer.headers["content-security-policy"]
    assert "<option>&lt;b&gt;&amp;</option>" in page
    assert "<b>" not in page
    assert not re.search(r"""(src|href)=["']?(?!data:,)\w|https?:|@import""", page)
    (nonce,) = set(re.findall(r'nonce="([^"]+)"', page))
    assert f"script-src 'nonce-{html.unescape(nonce)}'" in policy
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert client.get("/").text != page  # a nonce is used once
    assert "access-control-allow-origin" not in answer.headers


def test_the_page_speaks_the_same_words_in_both_languages(client: TestClient) -> None:
    english, vietnamese = re.findall(r"^  (?:en|vi): \{(.*?)\},$", client.get("/").text, re.MULTILINE | re.DOTALL)
    keys = [re.findall(r"(\w+): \"", words) for words in (english, vietnamese)]
    assert keys[0] == keys[1]
    assert json.dumps(vietnamese, ensure_ascii=False) == unicodedata.normalize(
        "NFC", json.dumps(vietnamese, ensure_ascii=False)
    )
