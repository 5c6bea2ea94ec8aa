"""StageTimer: seconds by stage."""

import time

from rnndet.system.timing import NO_TIMER, StageTimer


def test_stage_that_is_entered_twice_is_summed():
    timer = StageTimer()
    for _ in range(2):
        with timer.stage("a"):
            time.sleep(0.01)
    assert 0.02 <= timer.seconds["a"] <= timer.total


def test_device_is_waited_for_around_each_stage():
    calls = []
    timer = StageTimer(wait=lambda: calls.append("wait"))
    with timer.stage("a"):
        calls.append("work")
    assert calls == ["wait", "work", "wait"]


def test_reset_forgets_all_stages():
    timer = StageTimer()
    with timer.stage("a"):
        pass
    timer.reset()
    assert timer.seconds == {}


def test_no_timer_runs_the_block():
    done = []
    with NO_TIMER.stage("a"):
        done.append(1)
    assert done == [1]
