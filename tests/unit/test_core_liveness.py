"""Silence is judged by our own clock; numbers are seconds of it. Leases last 45 s here."""

from taskmaster.core.liveness import Pulses


def pulses(*workers: str, now: float = 0.0) -> Pulses:
    made = Pulses()
    for name in workers:
        made.observe(name, "mark-0", 45, now=now)
    return made


def renew(made: Pulses, *workers: str, now: float) -> None:
    for name in workers:
        made.observe(name, f"mark-{now}", 45, now=now)


def test_worker_expires_when_its_lease_has_not_changed_for_its_duration() -> None:
    made = pulses("a")
    assert made.expired(now=44.9) == []
    assert made.expired(now=45.0) == ["a"]


def test_change_of_the_lease_is_a_sign_of_life_and_repeating_it_is_not() -> None:
    made = pulses("a", "b")
    renew(made, "a", now=40)
    made.observe("b", "mark-0", 45, now=40)
    assert made.expired(now=50) == ["b"]


def test_renew_time_of_the_worker_is_never_compared_with_our_clock() -> None:
    made = Pulses()
    made.observe("a", "1970-01-01T00:00:00.000000Z", 45, now=1_000_000)
    assert made.expired(now=1_000_044) == []
    made.observe("a", "2999-01-01T00:00:00.000000Z", 45, now=1_000_044)
    assert made.expired(now=1_000_089) == ["a"]


def test_each_lease_has_its_own_duration() -> None:
    made = pulses("slow")
    made.observe("fast", "mark", 9, now=0)
    assert made.expired(now=9) == ["fast"]


def test_forgotten_worker_is_not_judged() -> None:
    made = pulses("a")
    made.forget("a")
    made.forget("a")
    assert made.expired(now=1_000) == []


def test_nobody_expires_while_frozen_and_all_get_a_full_duration_after_the_thaw() -> None:
    made = pulses("a")
    made.freeze()
    assert made.expired(now=1_000) == []
    made.thaw(now=1_000)
    assert made.expired(now=1_044.9) == []
    assert made.expired(now=1_045) == ["a"]


def test_thaw_without_a_freeze_gives_nobody_more_time() -> None:
    made = pulses("a")
    made.thaw(now=40)
    assert made.expired(now=45) == ["a"]


def test_worker_renewing_during_a_freeze_is_not_cut_short() -> None:
    made = pulses("a")
    made.freeze()
    renew(made, "a", now=500)
    made.thaw(now=510)
    assert made.expired(now=554) == []
    assert made.expired(now=555) == ["a"]


def test_two_workers_may_both_die() -> None:
    assert sorted(pulses("a", "b").expired(now=45)) == ["a", "b"]


def test_half_of_the_workers_may_die() -> None:
    made = pulses(*"abcd")
    renew(made, "c", "d", now=40)
    assert sorted(made.expired(now=45)) == ["a", "b"]


def test_when_most_seem_dead_they_get_one_more_duration() -> None:
    made = pulses(*"abcd")
    renew(made, "d", now=40)
    assert made.expired(now=45) == []
    renew(made, "d", now=80)
    assert made.expired(now=89.9) == []
    assert sorted(made.expired(now=90)) == ["a", "b", "c"]


def test_breaker_works_from_three_workers_on() -> None:
    made = pulses(*"abc")
    renew(made, "c", now=40)
    assert made.expired(now=45) == []
    assert sorted(made.expired(now=90)) == ["a", "b"]


def test_last_chance_is_kept_when_some_of_them_return() -> None:
    made = pulses(*"abcd")
    assert made.expired(now=45) == []
    renew(made, "b", "c", "d", now=60)
    assert made.expired(now=89.9) == []
    assert made.expired(now=90) == ["a"]


def test_most_dying_one_after_the_other_is_seen_as_well() -> None:
    """Renewals are spread over time, so the workers that a fault of ours silences expire one by one."""
    names = [f"w{number}" for number in range(10)]
    made = Pulses()
    for number, name in enumerate(names):
        made.observe(name, "mark", 45, now=float(number))
    declared = []
    for second in range(45, 90):
        for name in made.expired(now=float(second)):
            made.forget(name)  # taken over
            declared.append(name)
    assert len(declared) == 5
    declared += made.expired(now=200)
    assert sorted(declared) == names


def test_worker_that_returned_and_left_in_good_order_is_no_loss() -> None:
    made = pulses(*"abc")
    renew(made, "b", "c", now=44)
    assert made.expired(now=45) == ["a"]
    made.forget("a")
    renew(made, "a", now=50)
    made.forget("a")  # drained
    renew(made, "c", now=80)
    assert made.expired(now=89.5) == ["b"]


def test_losses_of_long_ago_do_not_count() -> None:
    made = pulses(*"abcdef")
    alive = list("abcdef")
    now = 0.0
    while alive:
        now += 45
        victim, *alive = alive
        renew(made, *alive, now=now)
        assert made.expired(now=now) == [victim]
        made.forget(victim)
        now += 1


def test_worker_that_was_declared_dead_and_returned_is_no_loss() -> None:
    made = pulses(*"abcd")
    renew(made, "b", "c", "d", now=44)
    assert made.expired(now=45) == ["a"]
    made.forget("a")
    renew(made, "a", now=50)
    renew(made, "a", "c", "d", now=80)
    assert made.expired(now=89) == ["b"]
