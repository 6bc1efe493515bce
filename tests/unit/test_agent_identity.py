"""Settings of the agent from its environment."""

import pytest

from taskmaster_worker.agent.identity import BadSetting, Life, from_environment

ENVIRONMENT = {
    "POD_NAME": "w",
    "POD_UID": "u",
    "POD_NAMESPACE": "n",
    "TASKMASTER_POOL": "p",
    "TASKMASTER_SLOTS": "4",
    "TASKMASTER_RUNNER_UID": "10002",
}


def test_defaults_fill_what_is_not_given() -> None:
    settings = from_environment(ENVIRONMENT)
    assert (settings.lease_seconds, settings.renew_seconds, settings.drain_seconds) == (45, 10, 30)
    assert (settings.http_host, settings.http_port) == ("0.0.0.0", 8081)
    assert (settings.slots, settings.runner_uid) == (4, 10002)


def test_any_runner_is_accepted_when_its_user_is_not_given() -> None:
    assert from_environment({**ENVIRONMENT, "TASKMASTER_RUNNER_UID": ""}).runner_uid is None


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"POD_NAME": ""}, "POD_NAME"),
        ({"POD_UID": ""}, "POD_UID"),
        ({"TASKMASTER_POOL": ""}, "TASKMASTER_POOL"),
        ({"TASKMASTER_SLOTS": "0"}, "TASKMASTER_SLOTS"),
        ({"TASKMASTER_SLOTS": "four"}, "TASKMASTER_SLOTS"),
        ({"TASKMASTER_RUNNER_UID": "-1"}, "TASKMASTER_RUNNER_UID"),
        ({"TASKMASTER_DRAIN_SECONDS": "-1"}, "TASKMASTER_DRAIN_SECONDS"),
        ({"TASKMASTER_HTTP_ADDRESS": "localhost"}, "TASKMASTER_HTTP_ADDRESS"),
        ({"TASKMASTER_RENEW_SECONDS": "23"}, "TASKMASTER_RENEW_SECONDS"),
        ({"TASKMASTER_LOG_LEVEL": "loud"}, "TASKMASTER_LOG_LEVEL"),
        ({"TASKMASTER_LABELS": "gpu=true"}, "TASKMASTER_LABELS must be JSON, not 'gpu=true'"),
        ({"TASKMASTER_LABELS": '["gpu"]'}, "TASKMASTER_LABELS must be a JSON object of strings"),
        ({"TASKMASTER_LABELS": '{"gpu": true}'}, "TASKMASTER_LABELS must be a JSON object of strings"),
        ({"TASKMASTER_QUEUES": "media"}, "TASKMASTER_QUEUES must be JSON, not 'media'"),
        ({"TASKMASTER_QUEUES": '{"media": 1}'}, "TASKMASTER_QUEUES must be a JSON list of names"),
        ({"TASKMASTER_QUEUES": '["media", 1]'}, "TASKMASTER_QUEUES must be a JSON list of names"),
        ({"TASKMASTER_QUEUES": '[""]'}, "TASKMASTER_QUEUES must be a JSON list of names"),
    ],
)
def test_a_bad_setting_is_named(changes: dict[str, str], named: str) -> None:
    with pytest.raises(BadSetting, match=named):
        from_environment({**ENVIRONMENT, **changes})


def test_each_life_has_an_incarnation_of_its_own() -> None:
    life = Life(from_environment(ENVIRONMENT))
    first = life.holder
    life.begin_anew()
    assert life.holder.incarnation != first.incarnation
    assert (life.holder.worker, life.holder.pod_uid) == ("w", "u")


def test_names_that_tasks_may_read_are_a_list_with_commas() -> None:
    assert from_environment(ENVIRONMENT).secret_names == frozenset()
    lists = {"TASKMASTER_SECRET_NAMES": "db, token,", "TASKMASTER_CONFIG_MAP_NAMES": ""}
    settings = from_environment({**ENVIRONMENT, **lists})
    assert (settings.secret_names, settings.config_map_names) == ({"db", "token"}, frozenset())


def test_labels_and_queues_are_json() -> None:
    settings = from_environment({**ENVIRONMENT, "TASKMASTER_LABELS": "", "TASKMASTER_QUEUES": ""})
    assert (settings.labels, settings.queues) == ({}, frozenset())
    given = {"TASKMASTER_LABELS": '{"gpu":"true","zone":""}', "TASKMASTER_QUEUES": '["media","mail"]'}
    settings = from_environment({**ENVIRONMENT, **given})
    assert (settings.labels, settings.queues) == ({"gpu": "true", "zone": ""}, {"media", "mail"})
