"""make bench-serve: its client against servers whose faults are known, its targets, its files, its end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import xml.etree.ElementTree as ET
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil
import pytest

from scripts.bench_serve.__main__ import main
from scripts.bench_serve.load import Load, Measured, ServerGone, quantile_ms
from scripts.bench_serve.record import Ceiling, Cell, Described, Record, Weight, read_record, write_record
from scripts.bench_serve.report import markdown
from scripts.bench_serve.servers import SERVERS, Site
from scripts.bench_serve.targets import missed, targets
from scripts.bench_serve.wire import BUSY, WRONG, Form, read_answer
from scripts.readme import serving

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parent.parent
CAT = Form("/predict").request(b"the cat's bytes", "image/png", "cat")
DOG = Form("/predict", "images").request(b"the dog's bytes", "image/png", "dog")


# The client


@contextmanager
def server(answer):
    """A server on this machine; `answer(handler, body)` answers a POST. Gives its port."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            answer(self, self.rfile.read(int(self.headers["Content-Length"])))

        def log_message(self, *_):
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 64

        def handle_error(self, request, client_address):
            pass  # clients may leave

    with Server(("127.0.0.1", 0), Handler) as listening:
        threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield listening.server_port
        listening.shutdown()


def say(handler, status, text, **headers):
    body = text.encode()
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


def right(handler, body):
    label = "cat" if b"the cat's bytes" in body else "dog"
    say(handler, 200, json.dumps({"id": 3, "label": label, "top": [{"label": "frog"}]}))


def load(port, concurrency=4, window_s=0.3, requests=(CAT, DOG)):
    return Load(port, requests, concurrency).run(0.05, window_s, 2.0)


def test_right_answers_are_counted_and_timed():
    with server(right) as port:
        measured = load(port)
    assert measured.errors == {} and measured.drained
    assert measured.answered > 0 and measured.per_second == measured.answered / measured.window_s
    assert measured.p50_ms is None or 0 < measured.p50_ms < measured.window_s * 1000
    assert 0 < measured.client_cpu < 1


def test_a_wrong_label_is_an_error_and_no_answer():
    with server(lambda handler, body: say(handler, 200, '{"label": "cat"}')) as port:
        measured = load(port, concurrency=1)
    assert list(measured.errors) == [WRONG]
    assert measured.errors[WRONG] >= measured.answered - 1 >= 0  # every other one, and those of the warm-up


def test_a_refused_request_is_asked_again_when_the_server_says():
    asked = []

    def refuse(handler, body):
        asked.append(body)
        say(handler, 503, "{}", Retry_After="1")

    with server(refuse) as port:
        measured = load(port, concurrency=3)
    assert measured.errors == {BUSY: 3} and len(asked) == 3
    assert measured.answered == 0 and measured.p50_ms is None


def test_what_is_not_answered_ends_with_the_window_and_has_no_latency():
    gate = threading.Event()
    with server(lambda handler, body: gate.wait(60)) as port:
        measured = Load(port, [CAT], 8).run(0.05, 0.2, 0.1)
        gate.set()
    assert (measured.answered, measured.open_at_end, measured.drained) == (0, 8, False)
    assert measured.p50_ms is measured.p99_ms is None and measured.window_s < 5


def test_a_connection_that_breaks_off_under_a_request_is_an_error_and_the_load_goes_on():
    count = iter(range(10**9))

    def now_and_then(handler, body):
        if next(count) % 10 == 9:
            handler.close_connection = True
        else:
            right(handler, body)

    with server(now_and_then) as port:
        measured = load(port)
    assert set(measured.errors) == {"connection lost"}
    assert measured.answered > measured.errors["connection lost"]


def test_a_server_may_close_between_two_requests():
    def once(handler, body):
        handler.close_connection = True
        say(handler, 200, json.dumps({"label": "cat"}), Connection="close")

    with server(once) as port:
        measured = load(port, requests=(CAT,))
    assert measured.errors == {} and measured.answered > 1


def test_nobody_listening_is_told_at_once():
    with server(right) as port:
        pass
    with pytest.raises(ServerGone, match=str(port)):
        load(port)


@pytest.mark.parametrize(
    "pieces",
    [
        [b"HTTP/1.1 200 OK\r\nContent-", b'Length: 16\r\n\r\n{"label": ', b'"cat"}'],
        [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b'10\r\n{"label": "cat"}\r\n', b"0\r\n\r\n"],
    ],
    ids=["length", "chunked"],
)
def test_an_answer_is_read_when_all_of_it_is_there(pieces):
    got = b""
    for piece in pieces:
        assert read_answer(got) is None
        got += piece
    assert read_answer(got).label == b"cat" and read_answer(got).fault(CAT) is None


def test_a_quantile_counts_what_is_still_open_as_slower():
    seconds = [i / 1000 for i in range(1, 1001)]
    assert quantile_ms(seconds, [], 0.5) == pytest.approx(501)
    assert quantile_ms(seconds, [0.4] * 500, 0.5) == pytest.approx(501)  # these may well turn out faster
    assert quantile_ms(seconds, [2.0] * 500, 0.5) == pytest.approx(751)
    assert quantile_ms(seconds, [2.0] * 1001, 0.5) is None
    assert quantile_ms(seconds[:99], [], 0.99) is None


# The targets


def measured(rps, p50_ms=1.0, errors=None):
    return Measured(int(rps * 2), 2.0, p50_ms, 9.0, errors or {}, 0, 0.3, True)


RPS = {"ours-torch": 380, "ours-onnx": 700, "flask": 70, "litserve-batch": 140}


@pytest.fixture
def record():
    """Two rounds that reach every target; the second on a machine half as fast."""
    made = Record(
        begun_at="2026-11-21T12:00:00+00:00", command="python -m scripts.bench_serve", quick=False,
        machine={"cpu_model": "A CPU", "cores": 2, "os": "Linux 6"}, cores={"server": 1, "client": 0},
        versions={"torch": "2"}, images={"source": "golden", "n": 100, "left_out": 0},
        plan={"rounds": 2, "window_s": 2.0, "warmup_s": 0.5},
        servers=[Described(s.name, s.title, s.engine, s.ours, s.how) for s in SERVERS.values() if s.name in RPS],
        complete=True,
    )  # fmt: skip
    for k, speed in enumerate((1.0, 0.5)):
        for name, rps in RPS.items():
            for c in (1, 64, 256):
                made.cells.append(Cell(name, k, c, measured(rps * speed, 3.0)))
            made.weights.append(Weight(name, k, 64, 110 if name == "ours-onnx" else 300, 500))
        for engine, rps, single in (("torch", 399, 2.6), ("onnx", 740, 2.7)):
            made.ceilings += [Ceiling(engine, k, 0, single, rps * speed * side) for side in (0.98, 1.02)]
            made.engines[engine] = {"batch": 16, "details": {}}
    made.starts_s = {"ours-onnx": [0.4, 0.45, 9.0], "ours-torch": [2.2, 2.4, 2.6]}
    made.import_torch_s = [2.0, 2.0, 2.1]
    return made


def test_targets_are_ratios_of_one_round_so_that_a_slower_machine_changes_none(record):
    found = targets(record)
    assert [row.reached for row in found] == [
        "0.952", "0.946", "5.00x", "torch +0.40 ms; onnx +0.30 ms", "torch 1.000; onnx 1.000; errors none",
        "onnx 0.45 s; torch 1.20x", "onnx 110 MB; torch 300 MB",
    ]  # fmt: skip
    assert missed(found) == [] and all(row.meets_aim for row in found)


def spoiled(record, name, concurrency, times=1.0, **change):
    def spoil(cell):
        if (cell.server, cell.concurrency) != (name, concurrency):
            return cell
        answered = int(cell.measured.answered * times)
        return replace(cell, measured=replace(cell.measured, answered=answered, **change))

    return replace(record, cells=[spoil(cell) for cell in record.cells])


@pytest.mark.parametrize(
    ("spoil", "which"),
    [
        (lambda r: spoiled(r, "ours-torch", 64, times=0.8), [0]),
        (lambda r: spoiled(r, "ours-onnx", 64, times=0.7), [1, 2]),
        (lambda r: spoiled(r, "litserve-batch", 64, times=1.5), [2]),
        (lambda r: spoiled(r, "ours-onnx", 1, p50_ms=3.8), [3]),
        (lambda r: spoiled(r, "ours-torch", 256, times=0.8), [4]),
        (lambda r: spoiled(r, "ours-torch", 256, errors={"connection lost": 1}), [4]),
        (lambda r: replace(r, starts_s=r.starts_s | {"ours-onnx": [0.9]}), [5]),
        (lambda r: replace(r, import_torch_s=[1.0]), [5]),
        (lambda r: replace(r, weights=[*r.weights, Weight("ours-torch", 1, 256, 401, 500)]), [6]),
    ],
    ids=["torch", "onnx", "peers", "alone", "crowded", "errors", "cold onnx", "cold torch", "memory"],
)
def test_a_target_that_is_missed_is_told(record, spoil, which):
    assert [index for index, row in enumerate(targets(spoil(record))) if not row.meets_must] == which


def test_a_503_is_no_error_of_the_service(record):
    assert missed(targets(spoiled(record, "ours-onnx", 256, errors={BUSY: 500}))) == []


def test_what_was_not_measured_is_not_reached(record):
    found = targets(replace(record, cells=[], ceilings=[], weights=[], starts_s={}, import_torch_s=[]))
    assert missed(found) == found
    assert all("not measured" in row.reached for row in found)


# The files


def test_tables_and_plots_come_from_the_record_alone(record, tmp_path, capsys):
    write_record(record, tmp_path)
    assert markdown(read_record(tmp_path)) == markdown(record)
    assert main(["--report", str(tmp_path), "--check"]) == 0
    told = (tmp_path / "serving.md").read_text()
    assert told == markdown(record) and "All 7 rows reach what they must" in told
    assert serving(told).count("| **This service") == 2 and "| 0.85 | 0.95 | **0.952** | aim |" in serving(told)
    assert "0.952" in capsys.readouterr().out


def test_the_processor_is_named_with_what_was_recorded_of_it(record):
    assert "Processor: 2 cores of A CPU (instruction sets not recorded)\n" in markdown(record)
    record.engines["torch"]["details"] = {"form": "bfloat16, channels_last, fused by oneDNN"}
    assert "2 cores of A CPU (bfloat16 in hardware, other instruction sets not recorded)\n" in markdown(record)
    record.machine |= {"cpu_generation": "Zen 3", "instruction_sets": ["AVX2"], "instruction_limits": {}}
    assert "Processor: 2 cores of A CPU (Zen 3; AVX2).\n" in serving(markdown(record))


def test_check_fails_when_a_target_is_missed(record, tmp_path):
    write_record(replace(record, starts_s={}), tmp_path)
    assert main(["--report", str(tmp_path)]) == 0
    assert main(["--report", str(tmp_path), "--check"]) == 1
    assert '1 of 7 rows do not reach what they must: "cold start' in (tmp_path / "serving.md").read_text()


def test_a_client_that_was_the_bottleneck_is_marked(record):
    marked = markdown(spoiled(record, "ours-onnx", 64, client_cpu=0.95))
    assert marked.count("the bottleneck") == 1 and "bottleneck" not in markdown(record)


def test_weights_that_were_replaced_during_a_run_are_told(record):
    record.about["ours-onnx"] = {"model": {"version": "b2"}}
    record.engines["onnx"]["version"] = "b2"
    assert "replaced" not in markdown(record)
    record.engines["onnx"]["version"] = "a1"
    assert "the weights were replaced meanwhile" in markdown(record)


def test_a_plot_stands_alone_and_has_colours_for_either_scheme(record, tmp_path):
    write_record(record, tmp_path)
    main(["--report", str(tmp_path)])
    for name in ("throughput.svg", "latency.svg"):
        svg = (tmp_path / name).read_text()
        assert ET.fromstring(svg).tag == "{http://www.w3.org/2000/svg}svg"
        light, dark = svg.split("<style>")[1].split("</style>")[0].split("@media(prefers-color-scheme:dark)")
        used = {part.split(")")[0] for part in svg.split("var(")[1:]}
        assert len(used) > 5 and all(f"{name}:#" in light and f"{name}:#" in dark for name in used)
        assert "This service, ONNX int8" in svg


# The whole


@pytest.mark.parametrize("name", [name for name, server in SERVERS.items() if not server.package])
def test_every_server_is_started_from_files_that_exist(name, tmp_path):
    start = SERVERS[name].start(Site(tmp_path, Path("python")), 8080)
    app = start.launch.command[-1].partition(":")[0].replace(".", "/")
    assert (start.cwd / f"{app}.py").is_file()
    assert any("8080" in word for word in (*start.launch.command, *start.launch.env.values()))


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores")
@pytest.mark.slow
def test_after_ctrl_c_what_was_measured_is_kept_and_nothing_runs_on(tmp_path):
    command = [sys.executable, "-m", "scripts.bench_serve", "--quick", "--servers", "ours-torch,flask,litserve"]
    command += ["--peers-python", str(tmp_path / "none"), "--out", str(tmp_path / "out"), "--limit", "20"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as bench:
        said, started = "", []
        while "  c=1 " not in said and (character := bench.stdout.read(1)):
            said += character
        started = psutil.Process(bench.pid).children(recursive=True)
        bench.send_signal(signal.SIGINT)
        said += bench.stdout.read()
    assert bench.returncode == 130, said
    assert "LitServe: not measured: litserve is not installed" in said
    assert len(started) >= 2 and psutil.wait_procs(started, 10)[1] == []
    record = read_record(tmp_path / "out")
    assert not record.complete and [cell.concurrency for cell in record.cells] == [1]
    (cell,) = record.cells
    assert cell.measured.answered > 0 and cell.measured.errors == {}
    assert "the run was ended early" in (tmp_path / "out" / "serving.md").read_text()
