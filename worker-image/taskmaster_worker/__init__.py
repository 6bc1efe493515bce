"""The worker of Taskmaster: the agent that talks to Kubernetes and the runner that runs user code."""
