from verl_air.training.rows import group_of, new_group_uids, session_of, uid_of


def test_a_key_tells_its_prompt_session_and_group() -> None:
    first, second = new_group_uids(2)
    assert "_" not in first  # verl splits its keys there
    assert group_of(first) == group_of(second) != group_of(new_group_uids(1)[0])
    key = f"{second}_2_0"
    assert uid_of(key) == second
    assert session_of(key) == f"{second}_2"
