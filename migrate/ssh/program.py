"""What the user's own ssh program is told by whoever starts it here: nothing is asked, nothing new is trusted."""

#: A connection that others share is used where there is one, and none is made: it would have to outlive us.
OPTIONS = (
    "BatchMode=yes",
    "StrictHostKeyChecking=yes",
    "UpdateHostKeys=no",
    "ControlMaster=no",
    "ClearAllForwardings=yes",
    "ForwardAgent=no",
    "ForwardX11=no",
    "PermitLocalCommand=no",
    "RemoteCommand=none",
    "RequestTTY=no",
    "LogLevel=INFO",
)
#: It, and the ssh of a jump host, which does not get our options, must not open a window either.
ENVIRONMENT = {"SSH_ASKPASS_REQUIRE": "never"}
