-- How Argo CD sees a Webhook, WebhookProvider or ClusterWebhookProvider: from the conditions of the present generation.
-- argocd-cm.yaml beside it carries the same text, once for each kind; tests/gitops.rs compares.

local function condition(type)
  if obj.status ~= nil and obj.status.conditions ~= nil then
    for _, found in ipairs(obj.status.conditions) do
      if found.type == type then
        return found
      end
    end
  end
  return nil
end

local function health(status, found, otherwise)
  local message = otherwise
  if found ~= nil then
    message = found.reason
    if found.message ~= nil and found.message ~= "" then
      message = message .. ": " .. found.message
    end
  end
  return { status = status, message = message }
end

local ready = condition("Ready")
local stalled = condition("Stalled")
local reconciling = condition("Reconciling")

if obj.metadata.deletionTimestamp ~= nil then
  return health("Progressing", ready, "being deleted")
end

-- The schema puts -1 into an object that the operator has not seen; a smaller number speaks of an older spec.
if obj.status == nil or obj.status.observedGeneration ~= obj.metadata.generation then
  return health("Progressing", nil, "waiting for the operator to see this generation")
end

if (obj.spec ~= nil and obj.spec.suspend == true) or (ready ~= nil and ready.reason == "Suspended") then
  return health("Suspended", ready, "suspended")
end

if stalled ~= nil and stalled.status == "True" then
  return health("Degraded", stalled)
end

if ready == nil then
  return health("Progressing", reconciling, "waiting for the condition Ready")
end

if ready.status == "False" then
  return health("Degraded", ready)
end

-- An upstream that can only be verified by its first Webhook: a sync wave that waited for it would wait for the wave
-- after it.
if ready.status == "True" or ready.reason == "NotVerified" then
  if reconciling ~= nil and reconciling.status == "True" then
    return health("Progressing", reconciling)
  end
  return health("Healthy", ready)
end

return health("Progressing", ready)
