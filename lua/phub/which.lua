-- Which children run where: on this node, and on all nodes of a hub.
local core = require "phub.core"

local which = {}

---@class phub.node_children
---@field node string
---@field children? { id: string, pid: lightuserdata, type: "worker"|"supervisor", modules: string[] }[]
---@field error? string  in place of the children: "timeout", or "noconnection" for a node that went down

local TIMEOUT = 5000

--- Of this node.
---@return phub.node_children?, table? err
function which.here(hub)
  local node = core.node_self()
  local children, err = core.children_on(hub, node)
  if not children then return nil, err end
  return { node = node, children = children }
end

--- Of every node of the hub, by name. All are asked at once, and waited for together.
---@param timeout? number  ms, default 5000
---@return phub.node_children[]?, table? err
function which.global(hub, timeout)
  local survey, err = core.survey(hub, timeout or TIMEOUT)
  if not survey then return nil, err end
  local answers
  answers, err = survey:await(math.huge)
  if not answers then return nil, err end
  for _, answer in ipairs(answers) do
    if not answer.error then
      answer.children, err = core.children_on(hub, answer.node)
      if not answer.children then return nil, err end
    end
  end
  return answers
end

return which
