#!/usr/bin/env python3
"""Tasks: what they say while and after their work, and what clients may do with them."""

import time

from drover import *

USER = {"short_name": "ada", "fullname": "Ada", "other_config": {"k": "v"}}
OTHER = "OpaqueRef:11111111-2222-4333-8444-555555555555"


def ended(s, task):
    return wait_for(lambda: s("task.get_status", task) != "pending" and s("task.get_record", task))


def async_calls_answer_a_task(m):
    s = m.login()
    task = s("Async.user.create", USER)
    record = ended(s, task)
    user = s("user.create", USER)
    assert record["name_label"] == "Async.user.create" and record["status"] == "success"
    assert record["type"] == "<none/>" and record["error_info"] == [] and record["progress"] == 1.0
    assert record["allowed_operations"] == [] and record["current_operations"] == {}
    assert record["resident_on"] == s("host.get_all")[0] and record["subtask_of"] == NULL
    assert str(record["finished"]) >= str(record["created"]) > "2020"
    assert record["result"].startswith("<value>OpaqueRef:") and record["result"].endswith("</value>")
    made = record["result"][7:-8]
    assert s("user.get_fullname", made) == "Ada" and s("user.get_other_config", made) == {"k": "v"}
    task = s("Async.user.destroy", user)
    assert ended(s, task)["result"] == "<value></value>"
    assert failure(s, "user.get_uuid", user) == ["HANDLE_INVALID", "user", user]
    assert set(s("task.get_all_records")) == set(s("task.get_all")) and len(s("task.get_all")) == 2


def what_fails_before_the_task_is_no_task(m):
    s = m.login()
    assert failure(s, "Async.user.destroy", OTHER) == ["HANDLE_INVALID", "user", OTHER]
    assert failure(m.call, "Async.user.create", OTHER, USER) == ["SESSION_INVALID", OTHER]
    assert failure(s, "Async.user.create") == ["MESSAGE_PARAMETER_COUNT_MISMATCH", "user.create", "1", "0"]
    assert s("task.get_all") == []


def clients_have_tasks_of_their_own(m):
    s = m.login()
    task = s("task.create", "label", "words")
    record = s("task.get_record", task)
    assert (record["name_label"], record["name_description"], record["status"]) == ("label", "words", "pending")
    assert str(record["finished"]) == "19700101T00:00:00Z"
    s("task.set_progress", task, 0.25)
    assert s("task.get_progress", task) == 0.25
    for bad in (-0.1, 1.5):
        assert failure(s, "task.set_progress", task, bad)[0] == "INVALID_VALUE"
    s("task.add_to_other_config", task, "a", "1")
    assert failure(s, "task.add_to_other_config", task, "a", "1") == [
        "MAP_DUPLICATE_KEY", "task", "other_config", task, "a"]
    s("task.remove_from_other_config", task, "b")
    assert s("task.get_other_config", task) == {"a": "1"}
    s("task.cancel", task)
    assert list(s("task.get_current_operations", task).values()) == ["cancel"]
    s("task.set_result", task, "<value>7</value>")
    s("task.set_error_info", task, ["A", "b"])
    s("task.set_status", task, "success")
    record = s("task.get_record", task)
    assert (record["status"], record["progress"], record["result"]) == ("success", 1.0, "<value>7</value>")
    assert record["current_operations"] == {} and str(record["finished"]) > "2020"
    # What has ended stays as it is.
    for name, value in (("set_status", "failure"), ("set_status", "pending"), ("set_progress", 0.5),
                        ("set_result", "x"), ("set_error_info", ["x"])):
        assert failure(s, "task." + name, task, value)[0] == "OPERATION_NOT_ALLOWED", name
    assert failure(s, "task.cancel", task)[0] == "OPERATION_NOT_ALLOWED"
    s("task.destroy", task)
    assert failure(s, "task.destroy", task) == ["HANDLE_INVALID", "task", task]
    # A pending one is only marked: its work ends first.
    task = s("task.create", "x", "y")
    s("task.destroy", task)
    assert list(s("task.get_current_operations", task).values()) == ["destroy"]
    s("task.set_status", task, "success")
    assert failure(s, "task.get_record", task) == ["HANDLE_INVALID", "task", task]


def headers_name_the_task(m):
    s = m.login()
    parent = s("task.create", "parent", "")
    child = s("Async.user.create", USER, headers={"subtask-of": parent})
    ended(s, child)
    assert s("task.get_subtask_of", child) == parent
    assert s("task.get_subtasks", parent) == [child]
    s("user.create", USER, headers={"task-id": parent})
    assert s("task.get_status", parent) == "pending"
    assert failure(s, "user.create", USER, headers={"task-id": OTHER}) == ["HANDLE_INVALID", "task", OTHER]
    assert failure(s, "Async.user.create", USER, headers={"subtask-of": "x"}) == ["HANDLE_INVALID", "task", "x"]


def many_tasks_all_end(m):
    s = m.login()
    c = http.client.HTTPConnection(*m.address, timeout=60)
    tasks = [s("Async.user.create", USER, connection=c) for _ in range(500)]
    wait_for(lambda: {r["status"] for r in s("task.get_all_records").values()} == {"success"})
    assert len(set(tasks)) == 500 == len(s("task.get_all"))


run(async_calls_answer_a_task, what_fails_before_the_task_is_no_task, clients_have_tasks_of_their_own,
    headers_name_the_task, many_tasks_all_end)
