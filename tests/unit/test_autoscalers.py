"""Worked examples of each autoscaler's arithmetic."""
from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.core.registry import AUTOSCALERS
from sim.policy.scale.base import Seen


def make(kind, **options):
    checked, problems = AUTOSCALERS.check({"kind": kind, **options})
    assert not problems
    return AUTOSCALERS.make(checked)


def seen(time, ready, starting=0, **facts):
    quiet = dict.fromkeys(("in_flight", "queued", "held", "kv", "busy", "arrivals", "ended", "late"), 0) | {
        "ttft": math.nan, "tpot": math.nan,
    }  # fmt: skip
    return Seen(time, ready, starting, **quiet | facts)


AT_ONCE = {"stabilization_window": 0}


class TestHpa:
    """The examples of kubernetes.io, "Horizontal Pod Autoscaling"."""

    @pytest.mark.parametrize(("ready", "value", "want"), [
        (1, 200, 2),  # "if the current metric value is 200m, and the desired value is 100m, the number of replicas will be doubled"
        (4, 50, 2),  # "if the current value is instead 50m, you'll halve the number of replicas"
        (5, 110, 5), (5, 90, 5), (10, 111, 12), (10, 89, 9), (3, 0, 0),
    ])  # fmt: skip
    def test_ratio_and_tolerance(self, ready, value, want):
        assert make("hpa", target={"concurrency": 100}, scale_down=AT_ONCE).want(seen(15, ready, in_flight=value * ready)) == want

    def test_the_most_of_several_metrics(self):
        policy = make("hpa", target={"kv": 0.5, "busy": 0.5, "queue": 2}, scale_down=AT_ONCE)
        assert policy.want(seen(15, 4, kv=0.25, busy=0.75, queued=4)) == 6

    @pytest.mark.parametrize(("ready", "starting", "value", "want"), [
        (2, 0, 2.0, 4),
        (2, 1, 2.0, 4),  # 4 units of load over 3 replicas: 1.33 x 3
        (2, 2, 2.0, 4),  # dampened to exactly the target: nothing moves
        (2, 2, 1.5, 4),  # the starting ones would turn it round: nothing moves
        (4, 6, 0.95, 10), (4, 6, 0.5, 2),
        (0, 3, 0.0, 3),  # no ready replica, no metric
    ])  # fmt: skip
    def test_starting_replicas_count_as_idle_on_the_way_up(self, ready, starting, value, want):
        policy = make("hpa", target={"kv": 0.25}, scale_down=AT_ONCE)
        assert policy.want(seen(15, ready, starting, kv=0.25 * value)) == want

    def test_rate_is_per_second_since_the_last_scrape(self):
        policy = make("hpa", target={"rate": 2}, scale_down=AT_ONCE)
        assert policy.want(seen(10, 2, arrivals=80)) == 4
        assert policy.want(seen(30, 4, arrivals=80)) == 2

    def test_goes_down_only_to_the_most_of_the_last_five_minutes(self):
        policy = make("hpa", target={"concurrency": 10})
        answers = [policy.want(seen(15 * step, 8, in_flight=80 if step == 0 else 40 if step < 3 else 20)) for step in range(30)]
        # The 80 of time 0 leave the window at 300 s, the 40 of 30 s at 330 s.
        assert answers == [8] * 20 + [4] * 2 + [2] * 8

    def test_the_window_up_waits_for_a_load_that_lasts(self):
        policy = make("hpa", target={"concurrency": 10}, scale_up={"stabilization_window": 30})
        assert [policy.want(seen(15 * step, 2, in_flight=40 if step not in (0, 2) else 20)) for step in range(8)] == [2] * 4 + [4] * 4

    def test_by_default_four_pods_or_twice_as_many_each_15_seconds(self):
        policy, ready, path = make("hpa", target={"concurrency": 1}), 1, []
        for step in range(6):
            ready = policy.want(seen(15 * step, ready, in_flight=1000))
            path.append(ready)
        assert path == [5, 10, 20, 40, 80, 160]

    def test_a_period_counts_what_was_done_in_it(self):
        rules = [{"type": "pods", "value": 4, "period": 60}]
        policy, ready, path = make("hpa", target={"concurrency": 1}, scale_up={"policies": rules}), 1, []
        for step in range(9):
            ready = policy.want(seen(15 * step, ready, in_flight=1000))
            path.append(ready)
        assert path == [5, 5, 5, 5, 9, 9, 9, 9, 13]

    def test_down_by_ten_percent_or_four_pods_whichever_is_more(self):
        """The page's example: from 80 replicas, 10 % first, and 4 pods once there are 40 or fewer."""
        rules = [{"type": "pods", "value": 4, "period": 60}, {"type": "percent", "value": 10, "period": 60}]
        policy, ready, path = make("hpa", target={"concurrency": 10}, scale_down={**AT_ONCE, "policies": rules}), 80, []
        for step in range(14):
            ready = policy.want(seen(60 * step, ready, in_flight=100))
            path.append(ready)
        assert path == [72, 64, 57, 51, 45, 40, 36, 32, 28, 24, 20, 16, 12, 10]

    def test_min_and_disabled(self):
        rules = [{"type": "pods", "value": 1}, {"type": "percent", "value": 50}]
        cautious = make("hpa", target={"concurrency": 10}, scale_down={**AT_ONCE, "policies": rules, "select_policy": "min"})
        assert cautious.want(seen(15, 8)) == 7
        off = {"stabilization_window": 0, "select_policy": "disabled"}
        never = make("hpa", target={"concurrency": 10}, scale_down=off, scale_up=off)
        assert never.want(seen(15, 8)) == 8
        assert never.want(seen(30, 8, in_flight=800)) == 8

    def test_what_bounds_cut_off_is_not_counted_as_done(self):
        """Asked for five more and got none: the five of that minute are still there to be asked for."""
        policy = make("hpa", target={"concurrency": 1}, scale_up={"policies": [{"type": "pods", "value": 5, "period": 60}]})
        assert [policy.want(seen(15 * step, 3, in_flight=100)) for step in range(3)] == [8, 8, 8]

    def test_is_woken_at_zero(self):
        policy = make("hpa", target={"concurrency": 1})
        assert [policy.want(seen(15, 0)), policy.want(seen(30, 0, held=3)), policy.want(seen(45, 0, 1, held=3))] == [0, 1, 1]


class TestKvThreshold:
    def want(self, kvs, queues, starting=0, **options):
        ready = len(kvs)
        facts = {"kv": sum(kvs) / ready, "queued": sum(queues)}
        return make("kv_threshold", **options).want(seen(15, ready, starting, kvs=kvs, queues=queues, **facts))

    @pytest.mark.parametrize(("kvs", "queues", "want"), [
        ((0.75, 0.75), (0, 0), 3),  # 0.05 of KV to spare, 0.1 wanted
        ((0.65, 0.65), (0, 0), 2),  # 0.15 to spare; on one replica it would be past full
        ((0.30, 0.30), (0, 0), 1),  # 0.2 to spare on one
        ((0.36, 0.36), (0, 0), 2),  # 0.08 to spare on one
        ((0.10, 0.10), (3, 3), 3),  # 2 places in the queue to spare, 3 wanted
        ((0.10, 0.10), (1, 0), 1), ((0.10, 0.10), (2, 1), 2),
        ((0.90, 0.10), (0, 0), 2),  # the saturated one is left out of the mean, and nothing is taken away
        ((0.10, 0.75), (9, 0), 3), ((0.90, 0.85), (0, 0), 3),
        ((0.05,), (0,), 1),
    ])  # fmt: skip
    def test_spare_room_of_the_unsaturated(self, kvs, queues, want):
        assert self.want(kvs, queues) == want

    def test_waits_for_the_replicas_that_start(self):
        assert self.want((0.9, 0.9), (9, 9), starting=1) == 3

    def test_works_with_means_alone(self):
        policy = make("kv_threshold")
        assert policy.want(seen(15, 4, kv=0.75)) == 5
        assert policy.want(seen(30, 4, kv=0.5)) == 3
        assert policy.want(seen(45, 4, kv=0.5, queued=12)) == 5


class TestConcurrency:
    def run(self, policy, loads, ready, every=2.0, first=0):
        return [policy.want(seen((first + i) * every, ready, in_flight=load)) for i, load in enumerate(loads)]

    def test_mean_concurrency_over_target(self):
        assert self.run(make("concurrency", target=10), [40] * 40, 6)[-1] == 6  # 40 / (10 x 0.7) = 5.7
        assert self.run(make("concurrency", target=10, utilization=1), [40] * 40, 6)[-1] == 4

    def test_calm_growth_follows_the_stable_window_and_panic_the_last_six_seconds(self):
        """Thirty seconds of 10, then a jump at 10 ready replicas: to 15 it is averaged, to 30 it panics (threshold 2)."""
        calm = self.run(make("concurrency", target=1, utilization=1), [10] * 15 + [15] * 3, 10)
        assert calm[-1] == math.ceil((15 * 10 + 3 * 15) / 18)
        panic = self.run(make("concurrency", target=1, utilization=1), [10] * 15 + [30] * 3, 10)
        assert panic[-3:] == [12, 24, 30]

    def test_no_way_down_in_panic_and_an_end_to_it(self):
        policy = make("concurrency", target=1, utilization=1)
        assert self.run(policy, [1] * 30 + [8] * 3, 1)[-1] == 8
        after = self.run(policy, [1] * 60, 8, first=33)
        ended = after.index(4)
        assert after[:ended] == [8] * ended
        # The burst ended at 64 s; the first scrape more than a stable window later lets go, and of half at most.
        assert 60 < 2 * (ended + 1) <= 64

    def test_down_by_half_at_most(self):
        assert self.run(make("concurrency", target=10), [0] * 40, 9)[0] == 4
        assert self.run(make("concurrency", target=10, max_scale_down_rate=3), [0] * 40, 9)[0] == 3

    def test_to_zero_after_the_grace_and_back(self):
        policy = make("concurrency", target=10)
        assert self.run(policy, [5] * 5, 1) == [1] * 5
        # The last request is in the stable window until 68 s; then 30 s of grace.
        answers = self.run(policy, [0] * 50, 1, first=5)
        assert 2 * (5 + answers.index(0)) == 98
        assert set(answers[answers.index(0):]) == {0}
        assert policy.want(seen(120, 0)) == 0
        assert policy.want(seen(122, 0, held=1)) == 1
        assert policy.want(seen(124, 0, 1, held=90)) == 5  # panic: the mean of the last three scrapes, 30.3, over 7
        assert policy.want(seen(126, 1, held=0, in_flight=90)) == 9

    def test_scale_down_delay(self):
        policy = make("concurrency", target=1, utilization=1, scale_down_delay=120, stable_window=6, panic_window=2)
        # The last window with an 8 in it was that of 8 s.
        assert 2 * self.run(policy, [8] * 3 + [4] * 70, 8).index(4) == 8 + 120


class TestScheduled:
    HOUR, DAY = 3600, 86400

    @pytest.mark.parametrize(("time", "replicas"), [
        (0, 5), (8 * 3600 - 1, 5), (8 * 3600, 40), (18 * 3600 - 0.5, 40), (18 * 3600, 5), (86400 + 8 * 3600, 40),
        (8 * 86400 + 9 * 3600, 40),
    ])  # fmt: skip
    def test_holds_from_line_to_line_every_day(self, time, replicas):
        table = [{"at": "18:00", "replicas": 5}, {"at": "08:00", "replicas": 40}]
        assert make("scheduled", table=table).want(seen(time, 1)) == replicas

    def test_days_of_the_week_and_the_time_zone(self):
        table = [{"at": "09:00", "replicas": 40, "days": ["mon", "fri"]}, {"at": "17:00", "replicas": 3}]
        policy = make("scheduled", table=table)
        asked = [policy.want(seen(day * self.DAY + 12 * self.HOUR, 1)) for day in range(7)]
        assert asked == [40, 3, 3, 3, 40, 3, 3]
        assert policy.want(seen(7 * self.DAY + 9 * self.HOUR, 1)) == 40
        east = make("scheduled", table=table, offset="9h")
        assert [east.want(seen(time, 1)) for time in (0, 8 * self.HOUR)] == [40, 3]
        west = make("scheduled", table=table, offset="-8h")
        assert [west.want(seen(hour * self.HOUR, 1)) for hour in (0, 16.99, 17)] == [3, 3, 40]

    @settings(max_examples=30, deadline=None)
    @given(hours=st.lists(st.integers(0, 23), min_size=1, unique=True), now=st.integers(0, 400))
    def test_the_latest_line_holds(self, hours, now):
        policy = make("scheduled", table=[{"at": f"{hour:02}:00", "replicas": hour} for hour in hours])
        assert policy.want(seen(now * 3600.0, 1)) == max((h for h in hours if h <= now % 24), default=max(hours))


class TestPredictive:
    """A day of a sine from 2 to 42 requests/s, replicas of 1 request/s that take 20 minutes to come up."""

    EVERY, COLD = 60, 20

    def load(self, time):
        return 22 - 20 * math.cos(2 * math.pi * time / 86400)

    def shortage(self, days, **options):
        """Requests beyond what the ready replicas can take, by day, as a share of all; and replica-days."""
        policy, asked, short, paid = make("predictive", capacity=1, **options), [3], [0.0] * days, 0.0
        for number in range(1, days * 1440):
            time = number * self.EVERY
            # A replica is ready when it was asked for at all times of its cold start; those no longer asked for are gone at once.
            ready = min(asked[-self.COLD:])
            short[int(time // 86400)] += max(0.0, self.load(time) - ready) / 22 / 1440
            paid += asked[-1] / 1440
            facts = {"in_flight": 1, "arrivals": round(self.load(time) * self.EVERY)}
            asked.append(policy.want(seen(time, ready, max(0, asked[-1] - ready), **facts)))
        return short, paid

    def test_beats_reacting_once_it_has_seen_a_day(self):
        ahead, paid = self.shortage(3, lead="30m", utilization=0.98)
        behind, cheaper = self.shortage(3, lead="1s", utilization=0.98)
        assert ahead[0] == pytest.approx(behind[0])
        assert behind[2] > 0.005
        assert ahead[2] < 0.1 * behind[2]
        assert paid < 1.1 * cheaper

    def test_a_busier_day_lifts_the_forecast(self):
        policy = make("predictive", capacity=1, slot="1h", lead="2h")
        for number in range(1, 1440 + 12 * 60):
            time = number * self.EVERY
            factor = 1.5 if time > 86400 else 1.0
            policy.want(seen(time, 9, arrivals=round(factor * self.load(time) * self.EVERY)))
        assert policy.forecast(time) == pytest.approx(1.5 * self.load(12 * 3600), rel=0.05)
        assert policy.forecast(time + 4 * 3600) == pytest.approx(1.5 * self.load(16 * 3600), rel=0.1)

    def test_reacts_to_what_no_season_foretold(self):
        policy = make("predictive", capacity=2, utilization=0.5, scale_down_delay=0)
        assert policy.want(seen(60, 1, arrivals=600)) == 10
        assert policy.want(seen(120, 1, arrivals=60)) == 1
        assert policy.want(seen(180, 1)) == 0
        assert policy.want(seen(240, 0, held=1)) == 1

    def test_counts_are_spread_over_the_slots_they_came_in(self):
        policy = make("predictive", capacity=1, season="1h", slot="10m", lead="1s")
        policy.want(seen(3600, 1, arrivals=3600))
        assert [policy.forecast(at) for at in range(0, 3600, 600)] == pytest.approx([1.0] * 6)


class TestSlo:
    def feed(self, policy, start, count, ready, **facts):
        """The last answer after so many scrapes a minute apart."""
        answer = 0
        for number in range(count):
            answer = policy.want(seen(60 * (start + number), ready, **{"arrivals": 600, "ended": 600, "in_flight": 50} | facts))
        return answer

    def test_grows_by_the_pressure_of_the_worst_measure(self):
        policy = make("slo", ttft=0.5, tpot=0.1, late=0.1)
        assert self.feed(policy, 1, 3, 10, ttft=0.6, tpot=0.15, late=0) == 15
        assert self.feed(make("slo", late=0.1), 1, 3, 10, late=72) == 12
        assert self.feed(make("slo", ttft=0.5), 1, 3, 10, ttft=9.0) == 20

    def test_rests_in_between(self):
        assert self.feed(make("slo", ttft=0.5), 1, 60, 10, ttft=0.3) == 10

    def test_shrinks_by_a_tenth_when_it_has_long_been_far_from_the_limit(self):
        policy = make("slo", ttft=0.5)
        assert self.feed(policy, 1, 6, 30, ttft=0.2) == 30
        assert self.feed(policy, 7, 1, 30, ttft=0.2) == 27
        assert self.feed(make("slo", ttft=0.5), 1, 7, 4, ttft=0.2) == 3

    def test_waits_for_new_measurements_after_a_change(self):
        policy = make("slo", ttft=0.5, window="3m")
        assert [self.feed(policy, 1 + number, 1, 4, ttft=1.0) for number in range(4)] == [4, 4, 4, 8]
        assert [self.feed(policy, 5 + number, 1, 8, ttft=1.0) for number in range(4)] == [8, 8, 8, 16]

    def test_does_not_go_back_to_where_it_was_too_slow(self):
        """600 a minute were too many for 10 replicas: not fewer than 12 at that load, and fewer when there are fewer requests."""
        policy = make("slo", ttft=0.5)
        assert self.feed(policy, 1, 3, 10, ttft=0.6) == 12
        assert self.feed(policy, 4, 20, 12, ttft=0.1) == 12
        assert self.feed(policy, 24, 20, 12, ttft=0.1, arrivals=500) == 11

    def test_nothing_done_while_many_wait_is_too_slow(self):
        policy = make("slo", ttft=0.5)
        assert self.feed(policy, 1, 3, 4, ended=0, ttft=math.nan, queued=30) == 8
        assert self.feed(make("slo", ttft=0.5), 1, 9, 4, ended=0, ttft=math.nan) == 4


@pytest.mark.parametrize(("options", "path", "text"), [
    ({"kind": "hpa", "target": {}}, "target", "at least 1 is wanted"),
    ({"kind": "hpa", "target": {"cpu": 0.5}}, "target.cpu", "found 'cpu'"),
    ({"kind": "hpa", "target": {"kv": 0}}, "target.kv", "a value above 0 is wanted"),
    ({"kind": "hpa", "target": {"kv": 0.8}, "scale_down": {"policies": []}}, "scale_down.policies", "at least 1 is wanted"),
    ({"kind": "hpa", "target": {"kv": 0.8}, "scale_up": {"window": 3}}, "scale_up.window", "unknown key of scale_up"),
    ({"kind": "kv_threshold", "queue_spare_trigger": 5}, "queue_spare_trigger", "below queue_length_threshold (5)"),
    ({"kind": "concurrency", "target": 8, "panic_window": "2m"}, "panic_window", "less than stable_window (60 s)"),
    ({"kind": "slo"}, "", "at least one limit is wanted"),
    ({"kind": "scheduled", "table": [{"at": "24:00", "replicas": 1}]}, "table.0.at", "a time of day is wanted, such as '08:30'"),
    ({"kind": "scheduled", "table": [{"at": "8:00", "replicas": 1}, {"at": "08:00", "replicas": 2, "days": ["sun"]}]},
     "table.1.at", "found '08:00' on sun again, as in table.0"),
    ({"kind": "scheduled", "table": [{"at": "8:00", "replicas": 1, "days": ["sunday"]}]}, "table.0.days.0", "did you mean sun"),
    ({"kind": "predictive", "capacity": 1, "slot": "7m"}, "slot", "a whole number of slots in a season"),
    ({"kind": "predictive", "capacity": 1, "slot": "1ms"}, "slot", "at most 100000 slots"),
    ({"kind": "predictive", "capacity": 1, "lead": "2d"}, "lead", "less than a season"),
])  # fmt: skip
def test_what_is_wrong_is_said(options, path, text):
    _, problems = AUTOSCALERS.check(options)
    assert [problem.path for problem in problems] == [path]
    assert text in problems[0].message


@pytest.mark.parametrize(("habit", "kind"), [("kpa", "concurrency"), ("cron", "scheduled"), ("wva", "kv_threshold"), ("hpaa", "hpa")])
def test_names_from_elsewhere_are_understood(habit, kind):
    _, problems = AUTOSCALERS.check({"kind": habit})
    assert f"did you mean {kind}?" in problems[0].message
