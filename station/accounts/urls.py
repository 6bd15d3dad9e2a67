"""URL patterns of the account pages."""

from __future__ import annotations

from django.urls import path

from station.accounts import oidc, second_factor, views
from station.accounts.log_in import LogInView, LogOutView

urlpatterns = [
    path("log-in/", LogInView.as_view(), name="log-in"),
    path("log-in/provider/", oidc.begin, name="oidc-begin"),
    path("log-in/provider/return", oidc.finish, name="oidc-return"),
    path("log-out/", LogOutView.as_view(), name="log-out"),
    path("account/", views.account, name="account"),
    path("account/password/", views.password, name="password"),
    path("account/tokens/", views.make_token, name="make-token"),
    path("account/tokens/<int:token>/revoke/", views.revoke_token, name="revoke-token"),
    path("account/second-factor/", second_factor.set_up, name="second-factor"),
    path("account/second-factor/remove/", second_factor.remove, name="remove-second-factor"),
    path("account/second-factor/recovery-codes/", second_factor.renew_recovery_codes, name="recovery-codes"),
    path("tokens/", views.tokens, name="tokens"),
    path("tokens/<int:token>/revoke/", views.revoke_any_token, name="revoke-any-token"),
    path("accounts/", views.accounts, name="accounts"),
    path("accounts/<int:user>/", views.change_account, name="change-account"),
    path("audit/", views.audit_log, name="audit-log"),
]
