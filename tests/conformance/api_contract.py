"""What the rest of the code relies on from an API server, checked on the real one and on the in-memory one alike.

A subclass in a test module runs it; the module provides the fixtures `api` and `namespace`. Where the two servers
differ on purpose, it is said in the in-memory server's docstring.
"""

import asyncio
from typing import Any

import pytest

from taskmaster.kube.api import Api, ApplyPatch, JsonPatch, MergePatch, WatchEvent
from taskmaster.kube.errors import AlreadyExists, ApiError, Conflict, Gone, NotFound, Unprocessable
from taskmaster.kube.resource import CONFIGMAPS, LEASES, TASKS, Object, Resource


def task(name: str, **spec: Any) -> Object:
    return {
        "apiVersion": TASKS.api_version,
        "kind": "Task",
        "metadata": {"name": name, "labels": {"test": "contract"}},
        "spec": {"run": {"command": ["true"]}, **spec},
    }


def config_map(name: str, *, labels: dict[str, str] | None = None, **data: str) -> Object:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": labels or {}}, "data": data}


def assign(worker: str, attempt: int = 1) -> JsonPatch:
    assignment = {
        "worker": worker,
        "podUID": "6a0b3f4e-0000-4000-8000-000000000001",
        "incarnation": "6a0b3f4e-0000-4000-8000-000000000002",
        "assignedTime": "2026-11-21T09:00:00.123456Z",
    }
    return JsonPatch(
        [
            {"op": "test", "path": "/status/phase", "value": "Pending"},
            {"op": "test", "path": "/status/attempt", "value": attempt - 1},
            {"op": "replace", "path": "/status/phase", "value": "Assigned"},
            {"op": "replace", "path": "/status/attempt", "value": attempt},
            {"op": "add", "path": "/status/assignment", "value": assignment},
        ]
    )


def version(item: Object) -> int:
    return int(item["metadata"]["resourceVersion"])


async def events(api: Api, resource: Resource, count: int, **arguments: Any) -> list[WatchEvent]:
    """The next `count` events but for bookmarks."""
    seen: list[WatchEvent] = []
    async with asyncio.timeout(10):
        async for event in api.watch(resource, timeout_seconds=30, **arguments):
            if event.type != "BOOKMARK":
                seen.append(event)
            if len(seen) == count:
                return seen
    raise AssertionError(f"the watch ended after {len(seen)} of {count} events")


class ApiContract:
    # ---- objects

    async def test_new_task_has_identity_generation_and_default_status(self, api: Api, namespace: str) -> None:
        made = await api.create(TASKS, namespace, {**task("a"), "status": {"phase": "Succeeded", "attempt": 3}})
        assert made["status"] == {"phase": "Pending", "attempt": 0}
        assert made["metadata"]["generation"] == 1
        assert made["metadata"]["namespace"] == namespace
        assert made["metadata"]["uid"]
        assert made["metadata"]["creationTimestamp"]
        got = await api.get(TASKS, namespace, "a")
        assert got["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]

    async def test_second_create_of_a_name_already_exists(self, api: Api, namespace: str) -> None:
        await api.create(TASKS, namespace, task("a"))
        with pytest.raises(AlreadyExists) as caught:
            await api.create(TASKS, namespace, task("a"))
        assert caught.value.status == 409
        assert not isinstance(caught.value, Conflict)

    async def test_generated_names_extend_the_prefix(self, api: Api, namespace: str) -> None:
        body = config_map("x")
        body["metadata"] = {"generateName": "gen-"}
        names = {(await api.create(CONFIGMAPS, namespace, body))["metadata"]["name"] for _ in range(3)}
        assert len(names) == 3
        assert all(name.startswith("gen-") and len(name) == 9 for name in names)

    async def test_missing_objects_are_not_found(self, api: Api, namespace: str) -> None:
        for call in (
            api.get(TASKS, namespace, "none"),
            api.delete(TASKS, namespace, "none"),
            api.patch(TASKS, namespace, "none", JsonPatch([])),
            api.patch(TASKS, namespace, "none", MergePatch({}), subresource="status"),
        ):
            with pytest.raises(NotFound):
                await call

    async def test_unknown_subresource_is_not_found(self, api: Api, namespace: str) -> None:
        await api.create(TASKS, namespace, task("a"))
        with pytest.raises(NotFound):
            await api.patch(TASKS, namespace, "a", MergePatch({}), subresource="nonsense")

    async def test_body_without_kind_is_a_bad_request(self, api: Api, namespace: str) -> None:
        with pytest.raises(ApiError) as caught:
            await api.create(TASKS, namespace, {"metadata": {"name": "a"}})
        assert caught.value.status == 400

    async def test_body_of_another_namespace_is_a_bad_request(self, api: Api, namespace: str) -> None:
        body = config_map("a")
        body["metadata"]["namespace"] = "elsewhere"
        with pytest.raises(ApiError) as caught:
            await api.create(CONFIGMAPS, namespace, body)
        assert caught.value.status == 400

    async def test_dry_run_stores_nothing(self, api: Api, namespace: str) -> None:
        made = await api.create(TASKS, namespace, task("a"), dry_run=True)
        assert made["metadata"]["name"] == "a"
        with pytest.raises(NotFound):
            await api.get(TASKS, namespace, "a")

    async def test_recreated_object_has_another_uid(self, api: Api, namespace: str) -> None:
        first = await api.create(TASKS, namespace, task("a"))
        await api.delete(TASKS, namespace, "a")
        second = await api.create(TASKS, namespace, task("a"))
        assert first["metadata"]["uid"] != second["metadata"]["uid"]

    # ---- patches

    async def test_failed_test_operation_is_unprocessable_and_changes_nothing(self, api: Api, namespace: str) -> None:
        made = await api.create(TASKS, namespace, task("a"))
        ops = [
            {"op": "replace", "path": "/status/phase", "value": "Assigned"},
            {"op": "test", "path": "/metadata/uid", "value": "somebody-else"},
        ]
        with pytest.raises(Unprocessable) as caught:
            await api.patch(TASKS, namespace, "a", JsonPatch(ops), subresource="status")
        assert caught.value.status == 422
        assert version(await api.get(TASKS, namespace, "a")) == version(made)

    @pytest.mark.parametrize(
        "op",
        [
            pytest.param({"op": "test", "path": "/status/attempt", "value": False}, id="false is not 0"),
            pytest.param({"op": "test", "path": "/status/attempt", "value": "0"}, id="a string is not a number"),
            pytest.param({"op": "test", "path": "/status/assignment", "value": {}}, id="absent is not empty"),
            pytest.param({"op": "test", "path": "/status/assignment/podUID", "value": "x"}, id="parent is absent"),
            pytest.param({"op": "remove", "path": "/status/assignment"}, id="remove of nothing"),
            pytest.param({"op": "add", "path": "/status/assignment/worker", "value": "x"}, id="add below nothing"),
        ],
    )
    async def test_operation_that_cannot_hold_is_unprocessable(self, api: Api, namespace: str, op: Object) -> None:
        await api.create(TASKS, namespace, task("a"))
        with pytest.raises(Unprocessable):
            await api.patch(TASKS, namespace, "a", JsonPatch([op]), subresource="status")

    async def test_replace_of_an_absent_key_adds_it(self, api: Api, namespace: str) -> None:
        # Against RFC 6902, but so does the library in kube-apiserver (evanphx/json-patch v4).
        await api.create(TASKS, namespace, task("a"))
        ops = [{"op": "replace", "path": "/status/message", "value": "new"}]
        patched = await api.patch(TASKS, namespace, "a", JsonPatch(ops), subresource="status")
        assert patched["status"] == {"phase": "Pending", "attempt": 0, "message": "new"}

    async def test_test_for_null_holds_for_what_is_absent(self, api: Api, namespace: str) -> None:
        await api.create(TASKS, namespace, task("a"))
        ops = [{"op": "test", "path": "/status/assignment", "value": None}]
        await api.patch(TASKS, namespace, "a", JsonPatch(ops), subresource="status")

    async def test_status_patch_leaves_spec_and_generation(self, api: Api, namespace: str) -> None:
        made = await api.create(TASKS, namespace, task("a"))
        patch = JsonPatch([*assign("w").ops, {"op": "add", "path": "/spec/priority", "value": 7}])
        patched = await api.patch(TASKS, namespace, "a", patch, subresource="status")
        assert patched["status"]["phase"] == "Assigned"
        assert patched["spec"] == made["spec"]
        assert patched["metadata"]["generation"] == 1
        assert version(patched) > version(made)

    async def test_main_patch_leaves_status_and_raises_generation(self, api: Api, namespace: str) -> None:
        await api.create(TASKS, namespace, task("a"))
        body = {"spec": {"priority": 7}, "status": {"phase": "Succeeded"}}
        patched = await api.patch(TASKS, namespace, "a", MergePatch(body))
        assert patched["status"] == {"phase": "Pending", "attempt": 0}
        assert patched["spec"]["priority"] == 7
        assert patched["metadata"]["generation"] == 2

    async def test_labels_do_not_raise_generation(self, api: Api, namespace: str) -> None:
        await api.create(TASKS, namespace, task("a"))
        patched = await api.patch(TASKS, namespace, "a", MergePatch({"metadata": {"labels": {"x": "y"}}}))
        assert patched["metadata"]["generation"] == 1
        assert patched["metadata"]["labels"] == {"test": "contract", "x": "y"}

    async def test_pointer_escapes_and_append(self, api: Api, namespace: str) -> None:
        await api.create(TASKS, namespace, task("a"))
        ops = [
            {"op": "add", "path": "/metadata/labels/taskmaster.dev~1pool", "value": "p"},
            {"op": "add", "path": "/spec/run/command/-", "value": "last"},
            {"op": "add", "path": "/spec/run/command/0", "value": "first"},
            {"op": "test", "path": "/spec/run/command/1", "value": "true"},
        ]
        patched = await api.patch(TASKS, namespace, "a", JsonPatch(ops))
        assert patched["metadata"]["labels"]["taskmaster.dev/pool"] == "p"
        assert patched["spec"]["run"]["command"] == ["first", "true", "last"]

    async def test_null_in_a_merge_patch_removes(self, api: Api, namespace: str) -> None:
        await api.create(CONFIGMAPS, namespace, config_map("c", a="1", b="2"))
        patched = await api.patch(CONFIGMAPS, namespace, "c", MergePatch({"data": {"a": None, "c": "3"}}))
        assert patched["data"] == {"b": "2", "c": "3"}

    async def test_stale_version_in_a_merge_patch_conflicts(self, api: Api, namespace: str) -> None:
        made = await api.create(CONFIGMAPS, namespace, config_map("c", a="1"))
        stale = {"resourceVersion": made["metadata"]["resourceVersion"]}
        await api.patch(CONFIGMAPS, namespace, "c", MergePatch({"metadata": stale, "data": {"a": "2"}}))
        with pytest.raises(Conflict):
            await api.patch(CONFIGMAPS, namespace, "c", MergePatch({"metadata": stale, "data": {"a": "3"}}))
        assert (await api.get(CONFIGMAPS, namespace, "c"))["data"] == {"a": "2"}

    async def test_stale_version_in_a_status_patch_conflicts(self, api: Api, namespace: str) -> None:
        made = await api.create(TASKS, namespace, task("a"))
        stale = {"resourceVersion": made["metadata"]["resourceVersion"]}
        await api.patch(TASKS, namespace, "a", MergePatch({"spec": {"priority": 1}}))
        with pytest.raises(Conflict):
            await api.patch(
                TASKS, namespace, "a", MergePatch({"metadata": stale, "status": {"message": "x"}}), subresource="status"
            )

    async def test_patch_without_effect_stores_nothing(self, api: Api, namespace: str) -> None:
        await api.create(TASKS, namespace, task("a"))
        made = await api.patch(TASKS, namespace, "a", assign("w"), subresource="status")
        ops = [{"op": "test", "path": "/metadata/uid", "value": made["metadata"]["uid"]}]
        patched = await api.patch(TASKS, namespace, "a", JsonPatch(ops), subresource="status")
        assert version(patched) == version(made)

    async def test_apply_creates_and_then_changes(self, api: Api, namespace: str) -> None:
        made = await api.patch(CONFIGMAPS, namespace, "c", ApplyPatch(config_map("c", a="1"), "contract"))
        patched = await api.patch(CONFIGMAPS, namespace, "c", ApplyPatch(config_map("c", a="2"), "contract"))
        assert patched["metadata"]["uid"] == made["metadata"]["uid"]
        assert patched["data"] == {"a": "2"}

    async def test_lease_keeps_micro_times_and_may_have_no_holder(self, api: Api, namespace: str) -> None:
        spec = {"holderIdentity": "a", "leaseDurationSeconds": 15, "renewTime": "2026-11-21T09:00:00.000100Z"}
        body = {"apiVersion": LEASES.api_version, "kind": "Lease", "metadata": {"name": "l"}, "spec": spec}
        assert (await api.create(LEASES, namespace, body))["spec"] == spec
        empty = MergePatch({"spec": {"holderIdentity": ""}})
        assert (await api.patch(LEASES, namespace, "l", empty))["spec"]["holderIdentity"] == ""

    # ---- deletes

    async def test_delete_with_another_uid_conflicts(self, api: Api, namespace: str) -> None:
        await api.create(TASKS, namespace, task("a"))
        with pytest.raises(Conflict):
            await api.delete(TASKS, namespace, "a", uid="6a0b3f4e-0000-4000-8000-00000000ffff")
        await api.get(TASKS, namespace, "a")

    async def test_delete_of_a_stale_version_conflicts(self, api: Api, namespace: str) -> None:
        made = await api.create(TASKS, namespace, task("a"))
        changed = await api.patch(TASKS, namespace, "a", MergePatch({"spec": {"priority": 1}}))
        identity = {"uid": made["metadata"]["uid"], "resource_version": made["metadata"]["resourceVersion"]}
        with pytest.raises(Conflict):
            await api.delete(TASKS, namespace, "a", **identity)
        identity["resource_version"] = changed["metadata"]["resourceVersion"]
        await api.delete(TASKS, namespace, "a", **identity)
        with pytest.raises(NotFound):
            await api.get(TASKS, namespace, "a")

    # ---- lists

    async def test_pages_show_the_state_at_the_first_page(self, api: Api, namespace: str) -> None:
        for number in range(5):
            await api.create(CONFIGMAPS, namespace, config_map(f"c{number}", labels={"set": "pages"}))
        seen, token, versions = [], "", set()
        for _ in range(9):
            page = await api.list(
                CONFIGMAPS, namespace=namespace, label_selector="set=pages", limit=2, continue_token=token
            )
            seen += [item["metadata"]["name"] for item in page.items]
            versions.add(page.resource_version)
            await api.create(CONFIGMAPS, namespace, config_map(f"c4-{len(seen)}", labels={"set": "pages"}))
            if not (token := page.continue_token):
                break
        assert seen == ["c0", "c1", "c2", "c3", "c4"]
        assert len(versions) == 1

    async def test_list_of_nothing_has_a_version(self, api: Api, namespace: str) -> None:
        page = await api.list(TASKS, namespace=namespace)
        assert page.items == []
        assert int(page.resource_version) > 0

    @pytest.mark.parametrize(
        ("selector", "names"),
        [
            ("metadata.name=b", ["b"]),
            ("metadata.name!=b", ["a", "c"]),
            ("status.phase=Assigned", ["a", "b"]),
            ("status.assignment.worker=w1", ["a"]),
            ("status.assignment.worker=", ["c"]),
            ("status.phase!=Pending,status.assignment.worker!=w1", ["b"]),
        ],
    )
    async def test_field_selectors(self, api: Api, namespace: str, selector: str, names: list[str]) -> None:
        for name in ("a", "b", "c"):
            await api.create(TASKS, namespace, task(name))
        await api.patch(TASKS, namespace, "a", assign("w1"), subresource="status")
        await api.patch(TASKS, namespace, "b", assign("w2"), subresource="status")
        page = await api.list(TASKS, namespace=namespace, field_selector=selector)
        assert [item["metadata"]["name"] for item in page.items] == names

    async def test_unsupported_field_selector_is_a_bad_request(self, api: Api, namespace: str) -> None:
        with pytest.raises(ApiError) as caught:
            await api.list(TASKS, namespace=namespace, field_selector="spec.description=x")
        assert caught.value.status == 400

    @pytest.mark.parametrize(
        ("selector", "names"),
        [
            ("tier=one", ["a"]),
            ("tier!=one", ["b", "c"]),
            ("tier", ["a", "b"]),
            ("!tier", ["c"]),
            ("tier,tier!=two", ["a"]),
        ],
    )
    async def test_label_selectors(self, api: Api, namespace: str, selector: str, names: list[str]) -> None:
        await api.create(TASKS, namespace, {**task("a"), "metadata": {"name": "a", "labels": {"tier": "one"}}})
        await api.create(TASKS, namespace, {**task("b"), "metadata": {"name": "b", "labels": {"tier": "two"}}})
        await api.create(TASKS, namespace, {**task("c"), "metadata": {"name": "c"}})
        page = await api.list(TASKS, namespace=namespace, label_selector=selector)
        assert [item["metadata"]["name"] for item in page.items] == names

    # ---- watches

    async def test_watch_tells_what_follows_the_list_in_order(self, api: Api, namespace: str) -> None:
        await api.create(TASKS, namespace, task("before"))
        start = (await api.list(TASKS, namespace=namespace)).resource_version
        await api.create(TASKS, namespace, task("a"))
        await api.patch(TASKS, namespace, "a", assign("w"), subresource="status")
        last = await api.patch(TASKS, namespace, "before", MergePatch({"spec": {"priority": 1}}))
        await api.delete(TASKS, namespace, "before")
        seen = await events(api, TASKS, 4, namespace=namespace, resource_version=start)
        assert [(event.type, event.object["metadata"]["name"]) for event in seen] == [
            ("ADDED", "a"),
            ("MODIFIED", "a"),
            ("MODIFIED", "before"),
            ("DELETED", "before"),
        ]
        versions = [version(event.object) for event in seen]
        assert versions == sorted(set(versions))
        assert versions[0] > int(start)
        assert versions[3] > version(last)  # a deletion has a version of its own

    async def test_object_that_leaves_the_selector_is_deleted_for_the_watch(self, api: Api, namespace: str) -> None:
        selector = "status.assignment.worker=w1,status.phase!=Succeeded"
        start = (await api.list(TASKS, namespace=namespace, field_selector=selector)).resource_version
        await api.create(TASKS, namespace, task("a"))
        entered = await api.patch(TASKS, namespace, "a", assign("w1"), subresource="status")
        release = [
            {"op": "replace", "path": "/status/phase", "value": "Pending"},
            {"op": "remove", "path": "/status/assignment"},
        ]
        left = await api.patch(TASKS, namespace, "a", JsonPatch(release), subresource="status")
        await api.patch(TASKS, namespace, "a", assign("w1", attempt=2), subresource="status")
        seen = await events(api, TASKS, 3, namespace=namespace, field_selector=selector, resource_version=start)
        assert [event.type for event in seen] == ["ADDED", "DELETED", "ADDED"]
        assert version(seen[0].object) == version(entered)
        # The last state that matched, with the version of the write that ended it.
        assert seen[1].object["status"]["assignment"]["worker"] == "w1"
        assert version(seen[1].object) == version(left)

    async def test_open_watch_hears_of_a_later_change(self, api: Api, namespace: str) -> None:
        start = (await api.list(CONFIGMAPS, namespace=namespace, label_selector="live")).resource_version
        waiting = asyncio.create_task(
            events(api, CONFIGMAPS, 1, namespace=namespace, label_selector="live", resource_version=start)
        )
        await asyncio.sleep(0.2)
        await api.create(CONFIGMAPS, namespace, config_map("late", labels={"live": "yes"}))
        assert [event.type for event in await waiting] == ["ADDED"]

    async def test_watch_ends_by_itself_and_carries_nothing_but_bookmarks(self, api: Api, namespace: str) -> None:
        start = (await api.list(TASKS, namespace=namespace)).resource_version
        await api.create(CONFIGMAPS, namespace, config_map("elsewhere"))
        seen = [
            event async for event in api.watch(TASKS, namespace=namespace, resource_version=start, timeout_seconds=2)
        ]
        assert {event.type for event in seen} <= {"BOOKMARK"}
        assert all(version(event.object) >= int(start) for event in seen)

    async def test_watch_from_an_ancient_version_is_gone(self, api: Api, namespace: str) -> None:
        with pytest.raises(Gone):
            await events(api, TASKS, 1, namespace=namespace, resource_version="1")
