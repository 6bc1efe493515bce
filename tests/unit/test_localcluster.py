import datetime
import os
import ssl
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from cryptography import x509

from localcluster import (
    archive,
    base,
    buildsettings,
    cgroups,
    choice,
    cli,
    components,
    containerd,
    discovery,
    health,
    images,
    kindcli,
    kubeconfig,
    kubelet,
    namespaces,
    network,
    paths,
    probes,
    requirements,
    tools,
)
from localcluster.certificates import Authority, KeyPair
from localcluster.cluster import Cluster
from localcluster.commands import run
from localcluster.errors import LocalClusterError
from localcluster.layout import Layout, Spec
from localcluster.processes import Child


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    return tmp_path


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("pki"))


Programs = Callable[[str, str], None]


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    """Makes small programs; no others are on PATH."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    (tmp_path / "bin").mkdir()

    def make(name: str, script: str) -> None:
        path = tmp_path / "bin" / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    return make


class TestTools:
    def modules(self, root: Path, *, version: str = "v1.36.3", source: str = "package main\n") -> Path:
        for module, requirement in (("kubernetes", f"k8s.io/kubernetes {version}"), ("helm", "helm.sh/helm/v4 v4.3.1")):
            (root / module / "pause").mkdir(parents=True)
            (root / module / "go.mod").write_text(f"module x\n\nrequire (\n\t{requirement}\n)\n")
            (root / module / "go.sum").write_text("")
        (root / "kubernetes" / "pause" / "main.go").write_text(source)
        return root

    def test_key_stays_the_same_for_the_same_modules_anywhere(self, tmp_path: Path) -> None:
        one, other = self.modules(tmp_path / "one"), self.modules(tmp_path / "other")
        assert tools.cache_key(one, "go1.26") == tools.cache_key(other, "go1.26")

    @pytest.mark.parametrize("changed", ["version", "source", "go"])
    def test_key_changes_with_whatever_changes_a_binary(self, tmp_path: Path, changed: str) -> None:
        before = tools.cache_key(self.modules(tmp_path / "before"), "go1.26")
        modules = self.modules(
            tmp_path / "after",
            version="v1.36.4" if changed == "version" else "v1.36.3",
            source="package main // changed\n" if changed == "source" else "package main\n",
        )
        assert tools.cache_key(modules, "go1.27" if changed == "go" else "go1.26") != before

    def test_pinned_versions_are_stamped_into_the_binaries(self) -> None:
        version = tools.pinned_version(paths.TOOLS, "kubernetes", "k8s.io/kubernetes")
        assert f"k8s.io/component-base/version.gitVersion={version}" in tools.build_flags(paths.TOOLS, "kubernetes")[-1]

    @pytest.mark.parametrize("printed", ["go version go1.25.9 linux/amd64", "?"])
    def test_old_go_is_refused(self, program: Programs, printed: str) -> None:
        program("go", f"echo '{printed}'")
        with pytest.raises(LocalClusterError, match=r"Go 1\.26 or newer"):
            tools.go_version()

    def test_unknown_tool_is_named_together_with_the_known_ones(self) -> None:
        with pytest.raises(LocalClusterError, match=r"'kubeadm'.*kube-apiserver"):
            tools.build(["kubeadm"])

    def test_built_tools_are_found_without_building(self, home: Path, program: Programs) -> None:
        program("go", "echo go version go1.26.1 linux/amd64")
        directory = paths.cache("tools", tools.cache_key(paths.TOOLS, tools.go_version()))
        directory.mkdir(parents=True)
        (directory / "etcd").touch()
        assert tools.build(["etcd"]) == directory


class TestNetwork:
    def test_same_name_gets_the_same_network(self) -> None:
        assert network.choose_link("demo", []) == network.choose_link("demo", [])

    def test_other_clusters_and_routes_are_avoided(self) -> None:
        taken: list[network.Network] = []
        for number in range(50):
            link = network.choose_link(f"cluster-{number % 3}", taken)
            assert not any(link.subnet.overlaps(other) for other in taken)
            taken.append(link.subnet)

    def test_another_range_is_used_where_a_route_covers_the_first(self) -> None:
        link = network.choose_link("demo", network.networks(["172.16.0.0/12", "default"]))
        assert link.subnet.subnet_of(network.LINK_RANGES[1])

    def test_no_free_network_is_an_error_that_says_so(self) -> None:
        with pytest.raises(LocalClusterError, match="no free network"):
            network.choose_link("demo", list(network.LINK_RANGES))

    def test_host_and_node_have_the_two_addresses_of_the_link(self) -> None:
        link = network.Link(network.Network("10.0.0.8/30"))
        assert (link.host, link.node) == ("10.0.0.9", "10.0.0.10")

    def test_routes_are_read_with_or_without_prefix_length(self) -> None:
        assert network.networks(["default", "10.0.0.5", "10.1.0.0/16", "fd00::/8"]) == [
            network.Network("10.0.0.5/32"),
            network.Network("10.1.0.0/16"),
        ]

    def test_interface_names_fit_the_kernel(self) -> None:
        assert len(network.interface("x" * 40)) <= 15


class TestKubeconfig:
    def config(self, name: str, server: str = "https://127.0.0.1:1") -> kubeconfig.Config:
        return {
            "clusters": [{"name": name, "cluster": {"server": server}}],
            "users": [{"name": name, "user": {}}],
            "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
            "current-context": name,
        }

    def test_merge_keeps_other_entries_and_switches_the_context(self) -> None:
        merged = kubeconfig.merge({**self.config("work"), "extensions": ["kept"]}, self.config("kind-demo"))
        assert [entry["name"] for entry in merged["clusters"]] == ["work", "kind-demo"]
        assert merged["current-context"] == "kind-demo"
        assert merged["extensions"] == ["kept"]

    def test_merge_replaces_an_entry_of_the_same_name(self) -> None:
        merged = kubeconfig.merge(self.config("kind-demo"), self.config("kind-demo", "https://127.0.0.1:2"))
        assert [entry["cluster"]["server"] for entry in merged["clusters"]] == ["https://127.0.0.1:2"]

    def test_removing_an_entry_undoes_the_merge_but_for_the_context(self) -> None:
        merged = kubeconfig.merge(self.config("work"), self.config("kind-demo"))
        left = kubeconfig.without(merged, "kind-demo")
        assert left["contexts"] == self.config("work")["contexts"]
        assert left["current-context"] == ""

    def test_written_file_is_private_and_reads_back(self, tmp_path: Path) -> None:
        path = kubeconfig.write(tmp_path / "below" / "config", self.config("a"))
        assert path.stat().st_mode & 0o777 == 0o600
        assert kubeconfig.read(path) == self.config("a")

    @pytest.mark.parametrize("text", ["", "# nothing\n", None], ids=["empty", "comment", "missing"])
    def test_nothing_reads_as_an_empty_configuration(self, tmp_path: Path, text: str | None) -> None:
        path = tmp_path / "config"
        if text is not None:
            path.write_text(text)
        assert kubeconfig.read(path) == {}

    @pytest.mark.parametrize("text", ["[1]", "{"], ids=["list", "no yaml"])
    def test_something_else_is_an_error(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "config").write_text(text)
        with pytest.raises(LocalClusterError, match="config"):
            kubeconfig.read(tmp_path / "config")


class TestCertificates:
    def test_server_certificate_names_its_hosts_and_addresses(self, authority: Authority) -> None:
        pair = authority.issue("server", "kube-apiserver", hosts=["127.0.0.1", "localhost"])
        certificate = x509.load_pem_x509_certificate(pair.certificate.read_bytes())
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert names.get_values_for_type(x509.DNSName) == ["localhost"]
        assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1"]

    def test_client_certificate_carries_user_and_groups(self, authority: Authority) -> None:
        pair = authority.issue("alice", "alice", groups=["team-a", "team-b"])
        subject = x509.load_pem_x509_certificate(pair.certificate.read_bytes()).subject
        assert [str(attribute.value) for attribute in subject] == ["team-a", "team-b", "alice"]

    def test_client_and_server_accept_each_other(self, authority: Authority) -> None:
        server = authority.issue("tls-server", "server", hosts=["127.0.0.1"])
        with HttpsServer(authority, server) as url:
            client = authority.issue("tls-client", "client")
            answer = probes.https_get(url, authority=authority.files.certificate, credentials=client)
        assert (answer.status, answer.body) == (200, b"ok")

    def test_nobody_listening_is_no_answer(self, authority: Authority) -> None:
        url = f"https://127.0.0.1:{probes.free_port()}"
        assert probes.https_get(url, authority=authority.files.certificate).status == 0

    def test_authority_is_kept_and_keys_are_private(self, tmp_path: Path) -> None:
        first = Authority(tmp_path).files.certificate.read_bytes()
        assert Authority(tmp_path).files.certificate.read_bytes() == first
        assert (tmp_path / "ca.key").stat().st_mode & 0o777 == 0o600


class HttpsServer:
    """Answers one request over TLS, from clients of the authority only."""

    def __init__(self, authority: Authority, pair: KeyPair) -> None:
        import http.server

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.end_headers()
                self.wfile.write(b"ok")

            def log_message(self, *arguments: object) -> None: ...

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pair.certificate, pair.key)
        context.load_verify_locations(authority.files.certificate)
        context.verify_mode = ssl.CERT_REQUIRED
        self._server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.handle_request)

    def __enter__(self) -> str:
        self._thread.start()
        return f"https://127.0.0.1:{self._server.server_port}"

    def __exit__(self, *_: object) -> None:
        self._thread.join()
        self._server.server_close()


class TestProcesses:
    def test_child_dies_with_a_parent_that_is_killed(self, tmp_path: Path) -> None:
        program = (
            "import os, pathlib, signal, sys\n"
            "from localcluster.processes import Child\n"
            "child = Child('sleeper', ['sleep', '60'], pathlib.Path(sys.argv[1]))\n"
            "print(child.pid, flush=True)\n"
            "os.kill(os.getpid(), signal.SIGKILL)\n"
        )
        environment = {**os.environ, "PYTHONPATH": str(paths.TOOLS)}
        command = [sys.executable, "-c", program, str(tmp_path / "log")]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30, check=False)
        status = Path(f"/proc/{done.stdout.strip()}/status")
        probes.wait_until(lambda: not status.exists() or "State:\tZ" in status.read_text(), "the child", timeout=5)

    def test_child_outlives_the_thread_that_started_it(self, tmp_path: Path) -> None:
        children: list[Child] = []
        thread = threading.Thread(target=lambda: children.append(Child("cat", ["sleep", "60"], tmp_path / "log")))
        thread.start()
        thread.join()
        try:
            with pytest.raises(LocalClusterError, match="timed out"):
                probes.wait_until(lambda: not children[0].running, "its end", timeout=0.2)
        finally:
            children[0].kill()

    def test_end_of_a_child_is_told_with_its_last_words(self, tmp_path: Path) -> None:
        child = Child("unhappy", ["sh", "-c", "echo no such flag; exit 3"], tmp_path / "log")
        probes.wait_until(lambda: not child.running, "its end", timeout=5)
        with pytest.raises(LocalClusterError, match=r"unhappy ended with 3:\s+no such flag"):
            child.expect_running()

    def test_stopping_twice_does_nothing(self, tmp_path: Path) -> None:
        child = Child("sleeper", ["sleep", "60"], tmp_path / "log")
        child.stop()
        child.stop()
        assert not child.running

    @pytest.mark.parametrize(
        ("command", "message"),
        [
            (["sh", "-c", "echo broken >&2; exit 7"], "exit code 7.*\nbroken"),
            (["no-such-program"], "no-such-program is not installed"),
            (["sleep", "60"], "longer than 0.2 s"),
        ],
        ids=["fails", "missing", "hangs"],
    )
    def test_failing_command_is_told_with_its_reason(self, command: list[str], message: str) -> None:
        with pytest.raises(LocalClusterError, match=message):
            run(command, timeout=0.2)


class TestNode:
    def test_layout_reads_back_what_it_wrote(self, tmp_path: Path) -> None:
        spec = Spec("demo", "172.31.192.8/30", "/tools")
        Layout(tmp_path / "demo", spec).create()
        loaded = Layout.load(tmp_path / "demo")
        assert loaded.spec == spec
        admin = kubeconfig.read(loaded.kubeconfig("admin"))
        assert admin["clusters"][0]["cluster"]["server"] == "https://172.31.192.10:6443"
        assert admin["current-context"] == "kind-demo"

    def test_half_made_cluster_is_an_error(self, tmp_path: Path) -> None:
        with pytest.raises(LocalClusterError, match="no usable cluster"):
            Layout.load(tmp_path)

    @pytest.mark.parametrize("name", ["", "a/b", "..", "Upper", "x" * 41, "-a", "a b"])
    def test_names_that_are_no_host_name_are_refused(self, name: str) -> None:
        with pytest.raises(LocalClusterError, match="not a usable name"):
            Cluster(name)

    def test_cluster_that_does_not_exist_is_neither_running_nor_healthy(self, home: Path) -> None:
        cluster = Cluster("nothing")
        assert not cluster.exists
        assert not cluster.healthy()
        with pytest.raises(LocalClusterError, match="not running"):
            _ = cluster.init

    def test_this_process_is_no_cluster(self, home: Path) -> None:
        assert discovery.first_process(paths.state("clusters", "x")) is None
        assert discovery.marked(paths.state("clusters", "x")) == set()

    def test_kubelet_configuration_is_valid_yaml_and_never_evicts(self, tmp_path: Path, authority: Authority) -> None:
        kubelet.command(
            Path("/kubelet"), cluster="a", node="a-1", address="10.0.0.2", directory=tmp_path, authority=authority
        )
        configuration = yaml.safe_load((tmp_path / "kubelet.yaml").read_text())
        assert configuration["cgroupRoot"] == "/taskmaster-a"
        assert set(configuration["evictionHard"].values()) == {"0%"}

    def test_containerd_configuration_names_only_its_own_directories(self, tmp_path: Path) -> None:
        assert containerd.write_config(tmp_path) == ["containerd", "--config", str(tmp_path / "containerd.toml")]
        assert "/var/lib" not in (tmp_path / "containerd.toml").read_text()

    def test_api_server_command_has_the_certificates_it_names(self, tmp_path: Path) -> None:
        command = components.apiserver(
            Path("/kube-apiserver"),
            authority=Authority(tmp_path),
            etcd_url="http://127.0.0.1:1",
            address=components.Address("127.0.0.1", "127.0.0.1", 2),
            service_cidr="10.96.0.0/16",
            service_host="10.96.0.1",
        )
        named = [word.partition("=")[2] for word in command if str(tmp_path) in word]
        assert named
        assert all(Path(path).exists() for path in named)

    def test_capabilities_are_read_from_the_effective_set(self) -> None:
        status = "Name:\tx\nCapPrm:\t000001ffffffffff\nCapEff:\t000001fffeffffff\n"
        assert not containerd.has_capability(status, containerd.CAP_SYS_RESOURCE)
        assert containerd.has_capability(status, 0)

    def test_cgroup_hierarchies_are_found_among_other_mounts(self) -> None:
        text = (
            "25 20 0:22 / /sys rw - sysfs sysfs rw\n"
            "30 25 0:26 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory\n"
            "31 25 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
        )
        assert cgroups.hierarchies(text) == [Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup/unified")]

    def test_only_outermost_submounts_are_bound_again(self) -> None:
        text = "".join(f"1 2 0:1 / {point} rw - ext4 x rw\n" for point in ("/var/lib/a/b", "/var/lib/a", "/variable"))
        assert namespaces.submounts(text, "/var") == ["/var/lib/a"]


class TestHealth:
    NOW = datetime.datetime(2026, 1, 1, 12, tzinfo=datetime.UTC)

    @pytest.mark.parametrize(
        ("status", "heard", "ready"),
        [("True", "2026-01-01T12:00:00Z", True), ("True", "2026-01-01T11:59:59Z", False), ("False", "", False)],
        ids=["ready", "said before", "not ready"],
    )
    def test_node_must_have_said_that_it_is_ready(self, status: str, heard: str, ready: bool) -> None:
        condition = {"type": "Ready", "status": status, "lastHeartbeatTime": heard or "2026-01-01T12:00:00Z"}
        assert health.node_ready({"status": {"conditions": [condition]}}, self.NOW) is ready

    @pytest.mark.parametrize(
        ("started", "current"), [("2026-01-01T12:00:01Z", True), ("2026-01-01T11:00:00Z", False), (None, True)]
    )
    def test_containers_of_an_earlier_life_do_not_count(self, started: str | None, current: bool) -> None:
        state = {"running": {"startedAt": started}} if started else {"waiting": {"reason": "Unknown"}}
        pods = {"items": [{"status": {"containerStatuses": [{"state": state}]}}, {}]}
        assert health.pods_current(pods, self.NOW) is current


class TestImages:
    def recipe(self, root: Path, *inputs: str) -> images.Recipe:
        (root / "src" / "__pycache__").mkdir(parents=True, exist_ok=True)
        (root / "src" / "main.py").write_text("1")
        (root / "src" / "__pycache__" / "main.pyc").write_text("x")
        (root / "Dockerfile").write_text("FROM scratch\n")
        return images.Recipe("app:1", root / "Dockerfile", root, inputs or ("src",))

    def test_inputs_are_listed_without_what_tools_leave_behind(self, tmp_path: Path) -> None:
        assert list(self.recipe(tmp_path).files()) == [Path("src/main.py")]

    def test_missing_input_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(LocalClusterError, match="input crds"):
            list(self.recipe(tmp_path, "crds").files())

    @pytest.mark.parametrize("changed", ["content", "mode", "name", "Dockerfile", "base"])
    def test_key_changes_with_whatever_changes_the_image(self, tmp_path: Path, changed: str) -> None:
        recipe = self.recipe(tmp_path)
        before = recipe.key("base")
        source = tmp_path / "src" / "main.py"
        match changed:
            case "content":
                source.write_text("2")
            case "mode":
                source.chmod(0o755)
            case "name":
                source.rename(source.with_name("other.py"))
            case "Dockerfile":
                recipe.dockerfile.write_text("FROM scratch\nCOPY src /\n")
        assert recipe.key("other base" if changed == "base" else "base") != before

    def test_key_ignores_files_that_are_no_inputs(self, tmp_path: Path) -> None:
        recipe = self.recipe(tmp_path)
        before = recipe.key("base")
        (tmp_path / "README").write_text("x")
        assert recipe.key("base") == before

    def test_image_that_was_never_built_is_named(self, home: Path) -> None:
        with pytest.raises(LocalClusterError, match="app:1 was not built here"):
            images.load(1, ["app:1"])

    def test_only_the_newest_archives_of_an_image_are_kept(self, tmp_path: Path) -> None:
        (tmp_path / "references").mkdir()
        for number, name in enumerate(["app%3A1", "app%3A2", "app%3A3", "other%3A1"]):
            (tmp_path / f"key{number}.tar").touch()
            (tmp_path / "references" / name).write_text(f"key{number}")
            os.utime(tmp_path / "references" / name, (number, number))
        images.prune(tmp_path, "app:3", keep=2)
        assert sorted(path.stem for path in tmp_path.glob("*.tar")) == ["key1", "key2", "key3"]

    @pytest.mark.parametrize("name", ["localhost/app:1", "registry:5000/app:1", "registry.example/team/app:1"])
    def test_names_with_a_registry_are_used_as_they_are(self, name: str) -> None:
        assert containerd.qualified(name) == name

    @pytest.mark.parametrize("name", ["app:1", "team/app:1"])
    def test_names_without_a_registry_are_refused_with_a_better_one(self, name: str) -> None:
        with pytest.raises(LocalClusterError, match=f"localhost/{name}"):
            containerd.qualified(name)

    def test_archive_of_one_file_is_the_same_every_time(self, tmp_path: Path) -> None:
        (tmp_path / "binary").write_bytes(b"\x7fELF")
        for name in ("one", "two"):
            archive.write_single_file(tmp_path / name, tmp_path / "binary", reference="x:1", entrypoint="/x")
        with tarfile.open(tmp_path / "one") as one, tarfile.open(tmp_path / "two") as two:
            assert one.getnames() == two.getnames()
            assert {"index.json", "oci-layout"} <= set(one.getnames())


class TestBase:
    def test_mirror_is_read_from_stanzas(self, tmp_path: Path) -> None:
        (tmp_path / "sources.list.d").mkdir()
        (tmp_path / "sources.list.d" / "debian.sources").write_text(
            "Types: deb\nURIs: https://other/security\nSuites: bookworm-security\nComponents: main\n\n"
            "# mine\nTypes: deb\nURIs: https://mirror/debian\nSuites: bookworm bookworm-updates\nComponents: main\n"
        )
        assert base.mirror("bookworm", tmp_path) == "https://mirror/debian"

    def test_mirror_is_read_from_lines(self, tmp_path: Path) -> None:
        (tmp_path / "sources.list").write_text(
            "# deb http://no/ bookworm main\ndeb [arch=amd64 signed-by=/x] http://mirror/debian bookworm main contrib\n"
        )
        assert base.mirror("bookworm", tmp_path) == "http://mirror/debian"

    def test_machine_without_the_suite_has_no_mirror(self, tmp_path: Path) -> None:
        assert base.mirror("bookworm", tmp_path) is None

    def test_key_depends_on_suite_and_packages(self) -> None:
        assert len({base.key(), base.key("trixie"), base.key(packages=["python3"])}) == 3


class TestBuildSettings:
    def test_environment_wins_over_pips_files(self) -> None:
        listed = "global.index-url='https://file/simple'\ninstall.timeout='5'\n:env:.retries='1'\n"
        settings = buildsettings.parse_pip_settings(listed, {"PIP_INDEX_URL": "https://env/simple"})
        assert settings == {"index-url": "https://env/simple", "timeout": "5", "retries": "1"}

    @pytest.mark.usefixtures("program")
    def test_local_package_directories_are_moved_below_the_mount(self, tmp_path: Path) -> None:
        links = f"{tmp_path} https://wheels/ /does/not/exist"
        settings = buildsettings.collect(links="/mnt", environment={"PIP_FIND_LINKS": links})
        assert settings.directories == (tmp_path,)
        assert "/mnt/0\n" in settings.pip_config
        assert str(tmp_path) not in settings.pip_config

    def test_settings_come_from_pip_itself(self, program: Programs) -> None:
        program("pip3", "echo \"global.index-url='https://index/%7Euser'\"")
        assert "index-url = https://index/%7Euser\n" in buildsettings.collect(links="/mnt", environment={}).pip_config

    @pytest.mark.usefixtures("program")
    def test_proxies_become_build_arguments(self) -> None:
        settings = buildsettings.collect(links="/mnt", environment={"HTTPS_PROXY": "http://proxy:1", "HOME": "/x"})
        assert settings.proxies == {"HTTPS_PROXY": "http://proxy:1"}


class TestRequirements:
    @pytest.mark.usefixtures("program")
    def test_message_names_everything_at_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
        message = requirements.complaint(requirements.unfixable(["runc", "buildah"]))
        for word in ("root", "https://go.dev", "runc", "buildah", "apt-get install", "CLUSTER=kind"):
            assert word in message

    def test_nothing_is_said_where_root_can_install_the_rest(
        self, program: Programs, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(os, "geteuid", lambda: 0)
        program("go", "echo go version go1.26.1 linux/amd64")
        program("apt-get", "exit 1")
        assert requirements.unfixable(["runc"]) == []

    @pytest.mark.parametrize("value", ["kind", "local", "existing"])
    def test_asked_for_cluster_is_taken(self, value: str) -> None:
        assert choice.choose(value) == value

    @pytest.mark.parametrize(("engine", "expected"), [("exit 0", "kind"), ("exit 1", "local")], ids=["runs", "off"])
    def test_auto_takes_kind_only_where_docker_runs(self, program: Programs, engine: str, expected: str) -> None:
        program("kind", "exit 0")
        program("docker", engine)
        assert choice.choose("auto") == expected

    @pytest.mark.usefixtures("program")
    def test_auto_takes_local_where_there_is_neither(self) -> None:
        assert choice.choose("auto") == "local"

    def test_unknown_choice_is_an_error(self) -> None:
        with pytest.raises(LocalClusterError, match="CLUSTER=minikube"):
            choice.choose("minikube")


class TestCommandLines:
    """The exact calls of pytest-kind and of people used to kind."""

    @pytest.mark.parametrize(
        "line",
        [
            "get clusters",
            "create cluster --name=a --kubeconfig=/x --image=kindest/node:v1 --config /y",
            "create cluster --name a --wait 60s --retain",
            "delete cluster --name=a --kubeconfig=/x",
            "load docker-image --name a app:1",
            "load docker-image app:1 other:2 --name a",
            "get kubeconfig --name a",
            "export kubeconfig --name a",
            "export logs /tmp/logs --name a",
            "version",
        ],
    )
    def test_kinds_calls_are_understood(self, line: str) -> None:
        assert callable(kindcli.parser().parse_args(line.split()).run)

    def test_no_clusters_is_no_error(self, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert kindcli.main(["get", "clusters"]) == 0
        assert capsys.readouterr().out == ""

    def test_deleting_what_does_not_exist_cleans_the_kubeconfig(self, home: Path) -> None:
        path = kubeconfig.write(home / "kubeconfig", TestKubeconfig().config("kind-gone"))
        assert kindcli.main(["delete", "cluster", "--name", "gone"]) == 0
        assert kubeconfig.read(path)["clusters"] == []

    def test_user_errors_are_one_line_and_exit_code_one(self, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert kindcli.main(["get", "kubeconfig", "--name", "gone"]) == 1
        assert capsys.readouterr().err.startswith("ERROR: no usable cluster")

    def test_missing_dockerfile_is_named(self, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.main(["image", "build", "--tag", "a:1", "--file", "No/Dockerfile"]) == 1
        assert "there is no No/Dockerfile" in capsys.readouterr().err
