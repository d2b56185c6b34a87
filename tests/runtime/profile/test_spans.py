from __future__ import annotations

import threading
import time
from types import SimpleNamespace

import pytest

from immunogate.runtime.clock import StageClock
from immunogate.runtime.profile.recorder import Recorder
from immunogate.runtime.profile.spans import listening, mark_frame, span


def test_nobody_listens_and_nothing_is_kept() -> None:
    assert span("a") is span("b")
    with span("a"), span("b"):
        mark_frame(3)
    recorder = Recorder()
    with listening(recorder):
        pass
    with span("after"):
        pass
    assert recorder.spans() == []


def test_spans_lie_in_each_other_and_belong_to_their_frame() -> None:
    recorder = Recorder()
    with listening(recorder):
        mark_frame(7)
        with span("outer"):
            with span("inner"):
                time.sleep(0.002)
            with span("inner"):
                pass
        with span("outer"):
            pass
    paths = [one.path for one in recorder.spans()]
    assert paths == ["outer/inner", "outer/inner", "outer", "outer"]
    first, second, outer, _ = recorder.spans()
    assert outer.start_ns <= first.start_ns <= first.end_ns <= second.start_ns <= second.end_ns <= outer.end_ns
    assert 2 <= first.ms < 200
    assert {one.frame for one in recorder.spans()} == {7}
    assert recorder.threads == {threading.get_ident(): threading.current_thread().name}


def test_a_span_ends_where_its_block_raises() -> None:
    recorder = Recorder()
    with listening(recorder):
        with pytest.raises(KeyError), span("outer"), span("inner"):
            raise KeyError
        with span("next"):
            pass
    assert [one.path for one in recorder.spans()] == ["outer/inner", "outer", "next"]


def test_threads_do_not_mix() -> None:
    recorder, inside = Recorder(), threading.Event()

    def other() -> None:
        mark_frame(1)
        with span("other"):
            inside.wait(5)

    with listening(recorder):
        thread = threading.Thread(target=other, name="the other one")
        thread.start()
        mark_frame(2)
        with span("mine"), span("part"):
            pass
        inside.set()
        thread.join()
    found = {one.path: one for one in recorder.spans()}
    assert set(found) == {"other", "mine", "mine/part"}
    assert (found["other"].frame, found["mine"].frame) == (1, 2)
    assert recorder.threads[found["other"].thread] == "the other one"
    assert found["other"].thread != found["mine"].thread


def test_one_listener_at_a_time() -> None:
    with listening(Recorder()), pytest.raises(ValueError, match="somebody listens already"), listening(Recorder()):
        pass
    with listening(Recorder()):  # the first one has gone
        pass


def test_a_stage_clock_is_heard_and_counts_as_before() -> None:
    recorder, clock = Recorder(), StageClock()
    with listening(recorder), clock.stage("detect"), span("network"):
        time.sleep(0.002)
    (network, detect) = recorder.spans()
    assert (network.path, detect.path) == ("detect/network", "detect")
    assert clock.spent_ms["detect"] == pytest.approx(detect.ms, abs=1)


def test_nvtx_is_told_of_every_span() -> None:
    told: list[str] = []
    fake_nvtx = SimpleNamespace(
        push_range=lambda name, domain: told.append(f"+{domain}.{name}"), pop_range=lambda domain: told.append("-")
    )
    with listening(Recorder(fake_nvtx)), span("a"), span("b"):
        pass
    assert told == ["+immunogate.a", "+immunogate.b", "-", "-"]


def test_a_span_costs_little() -> None:
    def cost(rounds: int = 5000) -> float:
        best = float("inf")
        for _ in range(5):
            start = time.perf_counter()
            for _ in range(rounds):
                with span("a"):
                    pass
            best = min(best, time.perf_counter() - start)
        return best / rounds

    silent = cost()
    with listening(Recorder()):
        heard = cost()
    assert silent < 20e-6  # some hundred nanoseconds where nothing disturbs
    assert heard < 100e-6
    assert silent < heard
