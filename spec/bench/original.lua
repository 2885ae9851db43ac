-- What ProcessHub 0.4.1-beta (Elixir 1.14, OTP 25) does on a machine of two cores, nodes as OS
-- processes on loopback, a GenServer with a small map as child; medians.
--
-- By the key of a row, then the number of nodes, then n; "any" where it does not matter. Seconds,
-- bytes, or so many a second, as in the row. A string is told as it is.
local FAILS = "fails"

return {
  start = {
    [1] = { [1000] = 17000, [10000] = 4200, [100000] = FAILS },
    [3] = { [1000] = 25000, [10000] = 5400, [100000] = FAILS },
  },
  stop = { [3] = { [1000] = 52000, [10000] = 16000 } },
  start_one = { [3] = { [0] = 0.00074, [10000] = 0.016 } },
  start_one_p99 = { [3] = { [0] = 0.004, [10000] = 0.052 } },
  stop_one = { [3] = { any = FAILS } }, -- times out after 10 s
  get_pid = { any = { any = 1.4e6 } },
  child_lookup = { any = { any = 1.7e6 } },
  process_list = { any = { [10000] = 0.015 } },
  tag_query = { any = { [10000] = 0.00043 } },
  join = { [3] = { [10000] = 0.9, [50000] = 10 } },
  kill = { [3] = { [10000] = 0.41, [50000] = 6.4 } },
  memory_own = { [3] = { [100000] = 4000 } },
  memory_other = { [3] = { [100000] = 420 } },
  idle_cpu = { [3] = { [10000] = 3.4 } },
  idle_bytes = { [3] = { [10000] = 105e3 } },
  call_local = { any = { any = 0.63e6 } },
  cast_local = { any = { any = 1.8e6 } },
  call_remote = { any = { any = 16000 } },
  cast_remote = { any = { any = 153000 } },
}
