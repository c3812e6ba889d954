"""Messages between driver and workers, on the local Ray that the tests share."""

import pytest

from infra.cluster.link import Link

pytestmark = pytest.mark.ray


def test_posts_arrive_in_order_and_once(local_ray):
    import ray

    link = Link.create("posts")

    @ray.remote(num_cpus=0)
    def work(name: str) -> None:
        for step in range(3):
            Link.attach(name).post({"step": step})
        # One more through the same door: what it returns has been read after all of the above.
        assert Link.attach(name).poll() == [{"step": step} for step in range(3)]
        Link.attach(name).post({"step": 3})

    ray.get(work.remote("posts"))
    assert link.poll() == [{"step": 3}]
    assert link.poll() == []


def test_a_request_to_stop_reaches_a_worker(local_ray):
    import ray

    link = Link.create("stop")
    assert link.stop_reason() is None

    @ray.remote(num_cpus=0)
    def work(link: Link) -> str:
        while (reason := link.stop_reason()) is None:
            pass
        return reason

    running = work.remote(link)
    link.request_stop("SIGTERM")
    link.request_stop("SIGINT")
    assert ray.get(running, timeout=30) == "SIGTERM"


def test_the_actor_takes_no_cpu_and_keeps_the_newest_posts(local_ray):
    import ray

    link = Link.create("free")
    for step in range(1100):
        link.post({"step": step})
    posts = link.poll()
    assert (len(posts), posts[-1]) == (1000, {"step": 1099})
    assert ray.available_resources()["CPU"] == 4.0
