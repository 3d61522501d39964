"""Sandboxes one by one: places, images, boots, warm ones, commands, memory, pauses, crashes, quotas."""
from __future__ import annotations

import numpy as np
import pytest
from sandbox_world import IMAGES, NETWORK, SNAPSHOT, Play, asked, held, scenario

from sim.spec.load import loads
from sim.world.sandboxes.lease import Refusal

NS = 3e-9


# -- coming up ------------------------------------------------------------
def test_boots_queue_for_the_daemon():
    """n boots of b seconds, c at a time: the k-th is ready at b * ceil(k / c)."""
    play = Play({"node": {"cores": 64, "memory": "64GB", "disk": "1TB"}, "boot": 5, "boot_concurrency": 3})
    times = [when for _, when in asked(play, *((0, 1, 0) for _ in range(10)))]
    assert times == pytest.approx([5 * np.ceil(k / 3) for k in range(1, 11)], abs=NS)
    assert play.checked()["boot_s"]["p50"] == pytest.approx(10)


def test_pulls_of_a_node_share_its_bandwidth_and_one_pull_serves_all():
    """Images of 10 GB each: both are there after 20 s; who wants one on its way waits for it; later it is there."""
    play = Play({"images": IMAGES, "boot": 1})
    times = [when for _, when in asked(play, (0, 50, 0), (0, 50, 1), (2, 50, 0), (30, 50, 1))]
    assert times == pytest.approx([21, 21, 21, 31], abs=NS)
    assert play.rows["hit"].tolist() == [False, False, False, True]
    assert play.checked()["pulled_gb"] == pytest.approx(20)


def test_unequal_pulls_end_as_fair_shares_say():
    """Sizes a < b from time 0 at rate B: 2 a / B and (a + b) / B."""
    play = Play({"images": {**IMAGES, "size": {"dist": "uniform", "min": "4GB", "max": "20GB"}}})
    sizes = play.pool.sizes
    times = [when for _, when in asked(play, (0, 1, 0), (0, 1, 1))]
    assert sorted(times) == pytest.approx([2 * min(sizes) / 1e9, sum(sizes) / 1e9], abs=NS)


def test_images_over_the_network_share_the_store():
    """Two nodes at 1 GB/s each from a store of 1.5 GB/s: 10 GB each take 20 / 1.5 s; alone 10 s."""
    pool = {"nodes": 2, "place": "spread", "images": {**IMAGES, "count": 1, "store": "hub"}}
    play = Play(pool, cluster={"network": NETWORK})
    times = [when for _, when in asked(play, (0, 1, 0), (0, 1, 0))]
    assert times == pytest.approx([20 / 1.5] * 2, abs=1e-4)
    assert play.checked()["pulled_gb"] == pytest.approx(20)
    flows = play.result.tables["flows"].to_pandas()
    assert flows["moved"].tolist() == [10e9, 10e9]
    assert set(flows["kind"]) == {"image"}
    ((_, alone),) = asked(Play({**pool, "nodes": 1}, cluster={"network": NETWORK}), (0, 1, 0))
    assert alone == pytest.approx(10, abs=1e-4)


def test_a_full_cache_lets_go_of_what_is_unused_longest_and_never_of_what_is_used():
    pool = {"node": {"cores": 8, "memory": "4GB", "disk": "50GB"}, "images": {**IMAGES, "count": 3}}
    play = Play(pool)
    asked(play, (0, 1, 0), (20, 100, 1), (40, 1, 2), (60, 1, 0), (80, 1, 1))
    assert play.rows["hit"].tolist() == [False, False, False, False, True]
    assert play.nodes["peak_images"].tolist() == [20e9]
    waiting = asked(Play(pool), (0, 100, 0), (0, 100, 1), (40, 1, 2))
    assert [when for _, when in waiting] == pytest.approx([20, 20, 130], abs=NS)


def test_popularity_is_zipfs():
    play = Play({"images": {**IMAGES, "count": 50, "zipf": 1.0, "size": "1MB"}})
    images = play.scenario.cluster.sandboxes[0].images
    numbers = np.bincount([images.number(play.pool.key, task) for task in range(20_000)], minlength=50)
    wanted = 1 / np.arange(1, 51)
    assert numbers / 20_000 == pytest.approx(wanted / wanted.sum(), abs=0.01)
    assert images.at(0.0) == 0
    assert images.at(1.0) == 49


def test_failed_boots_cost_the_time_out():
    play = Play({"boot": 2, "fail": 0.5, "boot_timeout": 30, "nodes": 50})
    found = asked(play, *((0, 1, 0) for _ in range(200)))
    refused = [when for what, when in found if what == Refusal("boot_failed")]
    assert len(refused) == pytest.approx(100, abs=25)
    assert refused == pytest.approx([30] * len(refused), abs=NS)
    assert play.checked()["outcomes"] == {"released": 200 - len(refused), "boot_failed": len(refused)}
    early = asked(Play({"boot": 2, "fail": 0.999999}), (0, 1, 0))
    assert early == [(Refusal("boot_failed"), pytest.approx(2, abs=NS))]


def test_a_boot_that_takes_too_long_is_given_up_and_makes_room():
    play = Play({"boot": 5, "boot_concurrency": 1, "boot_timeout": 12})
    found = asked(play, *((0, 1, 0) for _ in range(4)), (1, 1, 0))
    assert [what == Refusal("timeout") for what, _ in found] == [False, False, True, True, False]
    assert [when for _, when in found] == pytest.approx([5, 10, 12, 12, 17], abs=NS)
    play.checked()


# -- places ------------------------------------------------------------
@pytest.mark.parametrize(("place", "nodes"), [("bin_pack", [0, 0, 0, 0, 1]), ("spread", [0, 1, 2, 0, 1])])
def test_where_sandboxes_are_placed(place, nodes):
    play = Play({"nodes": 3, "place": place})
    asked(play, *((k, 100, 0) for k in range(5)))
    assert play.rows["node"].tolist() == nodes


def test_a_node_that_has_the_image_is_preferred():
    play = Play({"nodes": 3, "place": "image", "images": {**IMAGES, "size": "1MB"}})
    asked(play, (0, 100, 0), (1, 100, 1), (2, 100, 0), (3, 100, 1), (4, 100, 0), (5, 100, 0), (6, 100, 0))
    # The first node is full after its fourth sandbox.
    assert play.rows["node"].tolist() == [0, 1, 0, 1, 0, 0, 2]
    assert play.rows["hit"].tolist() == [False, False, True, True, True, True, False]


@pytest.mark.parametrize(("pool", "most"), [
    ({}, 4), ({"memory": {"base": "500MB"}, "limit": "2GB"}, 2), ({"limit": "2GB", "oversubscription": {"memory": 2}}, 4),
    ({"cores": 4}, 2), ({"cores": 4, "oversubscription": {"cpu": 1.5}}, 3), ({"disk": "40GB"}, 2),
    ({"oversubscription": {"memory": 10}}, 4),
])  # fmt: skip
def test_what_limits_the_sandboxes_of_a_node(pool, most):
    """Memory that is used never exceeds the node's, however much is promised."""
    play = Play(pool)
    assert play.scenario.cluster.sandboxes[0].slots == most
    asked(play, *((0, 10, 0) for _ in range(7)))
    assert play.checked()["occupancy"]["peak"] == most
    waits = play.rows["granted"].to_numpy()
    assert waits == pytest.approx([10 * (k // most) for k in range(7)], abs=NS)


def test_quota_and_a_full_line_are_refused_at_once():
    found = asked(Play({"quota": {"work": 2}}), (0, 5, 0), (0, 5, 0), (1, 5, 0), (6, 5, 0))
    assert [what == Refusal("quota") for what, _ in found] == [False, False, True, False]
    play = Play({"max_queue": 1})
    found = asked(play, *((0, 5, 0) for _ in range(4)), (1, 5, 0), (2, 5, 0))
    assert [(what == Refusal("full"), when) for what, when in found[4:]] == [(False, pytest.approx(5, abs=NS)), (True, 2)]
    assert play.checked()["outcomes"] == {"released": 5, "full": 1}


def test_who_withdraws_leaves_the_line_or_gives_back():
    play = Play({"nodes": 1})

    def fickle(at, later):
        yield play.env.timeout(at)
        ask = play.client.sandbox("box")
        yield play.env.timeout(later)
        ask.withdraw()
        ask.withdraw()

    play.begin(*(held(play, 0, 10) for _ in range(3)), fickle(0, 4), fickle(1, 2), fickle(1, 20), held(play, 2, 1)).end()
    assert play.rows["outcome"].tolist() == ["released"] * 3 + ["released", "withdrawn", "released", "released"]
    assert play.rows["granted"].to_numpy()[5:] == pytest.approx([4, 10], abs=NS)
    play.checked()


# -- warm ------------------------------------------------------------
def test_warm_sandboxes_are_there_at_once_and_refilled():
    play = Play({"boot": 5, "warm": 2})
    found = asked(play, (0, 100, 0), (0, 1, 0), (1, 1, 0), (7, 1, 0))
    # The two of the beginning; the third boots by itself; one of those that replace the two is ready at 5.
    assert [when for _, when in found] == pytest.approx([0, 0, 6, 7], abs=NS)
    figures = play.checked()
    assert (figures["asked"], figures["warm_hits"]) == (4, 0.75)
    assert (play.rows["workload"] == "").sum() == 2


def test_warm_sandboxes_give_way():
    play = Play({"boot": 5, "warm": 4, "images": {**IMAGES, "size": "1MB", "zipf": 5}})
    found = asked(play, (1, 10, next(n for n in range(200) if play_image(n) == 1)))
    assert found[0][1] == pytest.approx(6.001, abs=NS)
    assert (play.rows["outcome"] == "warm").sum() >= 4
    play.checked()


def play_image(task):
    pool = loads(scenario({"images": {**IMAGES, "size": "1MB", "zipf": 5}})).cluster.sandboxes[0]
    return pool.images.number(pool.key(1), task)


# -- commands ------------------------------------------------------------
def commands(play, *orders, grace=0.0):
    """Commands (at, seconds, cores, timeout) in one sandbox; what came of each, with the time."""
    found = [None] * len(orders)

    def one(lease, number, at, order):
        yield play.env.timeout(at)
        ran = yield lease.run(*order)
        found[number] = (ran.outcome, play.env.now, ran.queued)

    def life():
        lease = yield play.client.sandbox("box")
        yield play.env.all_of([play.env.process(one(lease, number, at, order)) for number, (at, *order) in enumerate(orders)])
        yield play.env.timeout(grace)
        lease.release()

    play.begin(life()).end()
    return found


def test_cores_are_shared_in_proportion_and_nobody_is_faster_than_alone():
    """8 cores: 4 + 4 fit; with 8 more all run at half speed, then again at full speed."""
    found = commands(Play(), (0, 10, 4), (0, 10, 4), (5, 1, 8))
    assert [(outcome, at) for outcome, at, _ in found] == [("ok", pytest.approx(at, abs=NS)) for at in (11, 11, 7)]


def test_slots_overhead_and_time_outs():
    play = Play({"exec": {"slots": 1, "overhead": "500ms"}})
    found = commands(play, (0, 2, 1), (1, 5, 1, 3.0), (1, 1, 1))
    assert [outcome for outcome, _, _ in found] == ["ok", "timeout", "ok"]
    assert [at for _, at, _ in found] == pytest.approx([2.5, 6.0, 7.5], abs=NS)
    assert [queued for _, _, queued in found] == pytest.approx([0, 1.5, 5.0], abs=NS)
    assert play.checked()["execs"] == 3
    assert play.rows["slot_s"].tolist() == pytest.approx([6.5], abs=NS)
    # The one that timed out had 3 of its 5 seconds.
    assert play.rows["cpu_s"].tolist() == pytest.approx([2 + 3 + 1], abs=1e-6)


def test_a_hang_ends_by_its_time_out_and_a_stop_at_once():
    play, found = Play(), []

    def life():
        lease = yield play.client.sandbox("box")
        found.append(((yield lease.hang(60)).outcome, play.env.now))
        command = lease.run(100)
        yield play.env.timeout(1)
        command.stop()
        found.append(((yield command).outcome, play.env.now))
        lease.release()
        lease.release()
        found.append(((yield lease.run(1)).outcome, play.env.now))

    play.begin(life()).end()
    assert found == [("timeout", pytest.approx(60, abs=NS)), ("stopped", pytest.approx(61, abs=NS)), ("crash", pytest.approx(61, abs=NS))]
    play.checked()


def test_memory_beyond_the_limit_or_the_node_kills_the_command():
    bursts = {"base": "1GB", "burst": "1.5GB", "burst_time": "2s"}
    play = Play({"memory": bursts, "limit": "3GB"})
    # Two bursts at a time are 4 GB; the first is over after 2 s.
    assert [outcome for outcome, _, _ in commands(play, (0, 5, 1), (1, 5, 1), (3, 5, 1))] == ["ok", "crash", "ok"]
    assert play.rows["killed"].tolist() == [1]
    assert play.nodes["peak_memory"].tolist() == [2.5e9]
    play.checked()
    # One holds 2.5 GB and the other 1 GB of 4 GB: a burst there does not fit.
    play, found = Play({"memory": bursts}), []

    def life(at):
        lease = yield play.client.sandbox("box")
        yield play.env.timeout(at)
        found.append((yield lease.run(5)).outcome)
        lease.release()

    play.begin(life(0), life(1)).end()
    assert found == ["crash", "ok"]


def test_commands_that_are_killed_as_they_begin_make_room_for_those_that_wait():
    """One slot, no time to get into it, and memory for few: whoever ends, killed or with the sandbox, hands the slot on at once."""
    play, found = Play({"memory": {"base": "1GB", "burst": {"dist": "uniform", "min": 0, "max": "4GB"}}, "limit": "1.5GB",
                        "exec": {"slots": 1, "overhead": 0}}), []  # fmt: skip

    def life():
        lease = yield play.client.sandbox("box")
        waiting = [lease.run(1.0) for _ in range(5000)]
        yield play.env.timeout(30.5)
        lease.release()
        for command in waiting:
            found.append((yield command).outcome)

    play.begin(life()).end()
    assert (len(found), found.count("ok"), len(found) - found.count("crash")) == (5000, 30, 30)
    # One in eight gets what it wants, each by its own luck.
    assert 30 * 7 / 2 < play.rows["killed"].tolist()[0] < 30 * 7 * 2
    play.checked()


@pytest.mark.parametrize(("kind", "seconds"), [("container", 10 + 2 * 1.5), ("microvm", 10 + 10 * 1.5)])
def test_a_microvm_keeps_what_a_burst_took(kind, seconds):
    play = Play({"kind": kind, "memory": {"base": "1GB", "burst": "1.5GB", "burst_time": "2s"}})
    commands(play, (0, 5, 1), grace=5.0)
    assert play.rows["memory_s"].tolist() == pytest.approx([seconds * 1e9], rel=1e-6)


# -- pauses, crashes, idleness ------------------------------------------------------------


def test_a_paused_sandbox_makes_room_and_comes_back_when_there_is_some():
    play, found = Play({"node": {"cores": 8, "memory": "1GB", "disk": "10GB"}, **SNAPSHOT}), []

    def sleeper():
        lease = yield play.client.sandbox("box")
        found.append((yield lease.pause()))
        yield play.env.timeout(8)
        found.append((yield lease.resume()))
        found.append(play.env.now)
        yield lease.run(1)
        lease.release()

    play.begin(sleeper(), held(play, 0, 20)).end()
    # Saved at 2, when the other gets the memory until 22; back at 25.
    assert found == [True, True, pytest.approx(25, abs=NS)]
    assert play.rows["granted"].tolist() == pytest.approx([0, 2], abs=NS)
    assert play.rows["paused_s"].tolist() == pytest.approx([25, 0], abs=NS)
    assert play.nodes["peak_disk"].tolist() == [1e9]
    assert play.checked()["held"]["paused"] == pytest.approx(25 / (26 + 20))


def test_a_command_brings_a_paused_sandbox_back():
    play = Play({"idle_timeout": "10s", **SNAPSHOT})
    found = commands(play, (0, 1, 1), (20, 1, 1), (21, 1, 1))
    # Idle from 1 to 11, saved by 13; wanted at 20, back at 23.
    assert [at for _, at, _ in found] == pytest.approx([1, 24, 24], abs=NS)
    assert [queued for _, _, queued in found] == pytest.approx([0, 3, 2], abs=NS)
    play.checked()


def test_without_snapshots_there_are_no_pauses_and_idle_ones_are_taken_away():
    play, found = Play({"idle_timeout": "10s"}), []

    def life():
        lease = yield play.client.sandbox("box")
        found.append((yield lease.pause()))
        yield lease.run(7)
        found.append(((yield lease.lost), play.env.now, lease.open))
        found.append((yield lease.run(1)).outcome)
        lease.release()

    play.begin(life()).end()
    assert found == [False, ("idle", pytest.approx(17, abs=NS), False), "crash"]
    assert play.checked()["outcomes"] == {"idle": 1}


def test_crashes_come_at_their_rate():
    """Held for an hour at half a crash per hour: 1 - exp(-1/2) of them crash."""
    count = 4000
    play, found = Play({"nodes": 1000, "crash": 0.5}), []

    def life():
        lease = yield play.client.sandbox("box")
        ran = yield lease.run(3600, 0.0)
        found.append((ran.outcome, lease.lost.triggered))
        lease.release()

    play.begin(*(life() for _ in range(count))).end()
    share = sum(outcome == "crash" for outcome, _ in found) / count
    wanted = 1 - np.exp(-0.5)
    assert share == pytest.approx(wanted, abs=3 * np.sqrt(wanted * (1 - wanted) / count))
    assert all((outcome == "crash") == lost for outcome, lost in found)
    play.checked()


def test_what_is_held_at_the_end_is_unfinished():
    play = Play({"boot": 4}, duration=10)
    play.begin(*(held(play, 0, 100) for _ in range(5))).end(10)
    assert play.rows["outcome"].tolist() == ["unfinished"] * 5
    assert play.rows["released"].to_numpy() == pytest.approx([10] * 5)
    assert play.rows["idle_s"].to_numpy() == pytest.approx([6, 6, 6, 6, 0])
    play.checked()
