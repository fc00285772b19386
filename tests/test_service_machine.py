import os
import time

from service.machine import _cgroup_quota, cpu_model, process_started_at, usable_cpus


def test_at_least_one_cpu_and_at_most_those_of_the_affinity():
    assert 1 <= usable_cpus() <= len(os.sched_getaffinity(0))


def test_the_smallest_quota_on_the_way_to_the_root_holds(tmp_path):
    group = tmp_path / "outer" / "inner"
    group.mkdir(parents=True)
    (tmp_path / "outer" / "cpu.max").write_text("50000 100000\n")
    (group / "cpu.max").write_text("max 100000\n")
    membership = tmp_path / "cgroup"
    membership.write_text("0::/outer/inner\n")
    assert _cgroup_quota(tmp_path, membership) == 0.5


def test_without_control_groups_there_is_no_quota(tmp_path):
    assert _cgroup_quota(tmp_path, tmp_path / "none") == float("inf")


def test_the_process_began_before_now():
    assert 0 < time.time() - process_started_at() < 24 * 3600


def test_the_cpu_has_a_name():
    assert cpu_model()
