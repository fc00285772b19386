import os
import time

from service.machine import _cgroup_quota, cpu_flags, cpu_model, process_started_at, usable_cpus


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


def test_a_quota_of_the_first_version_of_control_groups_holds_too(tmp_path):
    folder = tmp_path / "cpu"
    folder.mkdir()
    (folder / "cpu.cfs_period_us").write_text("100000\n")
    (folder / "cpu.cfs_quota_us").write_text("150000\n")
    assert _cgroup_quota(tmp_path, tmp_path / "none") == 1.5
    (folder / "cpu.cfs_quota_us").write_text("-1\n")
    assert _cgroup_quota(tmp_path, tmp_path / "none") == float("inf")


def test_without_control_groups_there_is_no_quota(tmp_path):
    assert _cgroup_quota(tmp_path, tmp_path / "none") == float("inf")


def test_the_process_began_before_now():
    assert 0 < time.time() - process_started_at() < 24 * 3600


def test_the_cpu_has_a_name():
    assert cpu_model()


def test_the_flags_are_those_the_kernel_lists():
    assert cpu_flags() == set() or {"fp", "fpu"} & cpu_flags()
