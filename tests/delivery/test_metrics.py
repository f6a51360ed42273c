"""The server's counts, in the format that Prometheus reads."""

import re

from loraft.delivery.metrics import Histogram, Metrics

SAMPLE = re.compile(r'[a-z_]+(\{[a-z]+="(\\.|[^"\\])*"(,[a-z]+="(\\.|[^"\\])*")*\})? -?[0-9.e+-]+')


def test_a_histogram_counts_values_up_to_each_bound() -> None:
    made = Histogram((1, 5))
    for value in (0.5, 1, 2, 5, 9):
        made.add(value)
    assert made.lines("x") == [
        'x_bucket{le="1"} 2', 'x_bucket{le="5"} 4', 'x_bucket{le="+Inf"} 5', "x_sum 17.5", "x_count 5",
    ]  # fmt: skip


def test_every_line_is_a_sample_or_a_comment_also_with_strange_names() -> None:
    metrics = Metrics()
    metrics.requests["/classify", 200] += 2
    metrics.rows['một "hai"\n\\'] += 3
    metrics.seconds.add(0.012)
    text = metrics.text(waiting=4)
    assert text.endswith("\n")
    for line in text.splitlines():
        assert re.fullmatch(r"# (HELP|TYPE) loraft_[a-z_]+ .+", line) or SAMPLE.fullmatch(line), line
    assert 'loraft_requests_total{path="/classify",code="200"} 2\n' in text
    assert 'loraft_rows_total{model="một \\"hai\\"\\n\\\\"} 3\n' in text
    assert "loraft_queue_rows 4\n" in text
    assert 'loraft_request_seconds_bucket{le="0.025"} 1\n' in text
