"""A real Kubernetes cluster on a bare Linux machine, without Docker.

Two sizes share the same parts. `ControlPlane` is etcd, kube-apiserver and kube-controller-manager as plain child
processes: enough for every test that needs a real API server but no containers, ready in three seconds, and it needs
no root. A *node cluster* adds scheduler, kube-proxy, containerd and kubelet, and runs containers; it lives in
namespaces of its own, so that the machine stays as it was, and it answers to kind's command line (`tools/kind`).

All Kubernetes binaries are built from the pinned Go modules beside this package, because a version in a go.sum is
the only download that every machine with Go can verify.
"""
