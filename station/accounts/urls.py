"""URL patterns of the account pages."""

from __future__ import annotations

from django.contrib.auth.views import LoginView, LogoutView
from django.urls import path

from station.accounts import views

urlpatterns = [
    path("log-in/", LoginView.as_view(template_name="station/accounts/log-in.html", redirect_authenticated_user=True), name="log-in"),
    path("log-out/", LogoutView.as_view(), name="log-out"),
    path("account/", views.account, name="account"),
    path("account/password/", views.password, name="password"),
    path("account/tokens/", views.make_token, name="make-token"),
    path("account/tokens/<int:token>/revoke/", views.revoke_token, name="revoke-token"),
    path("accounts/", views.accounts, name="accounts"),
    path("accounts/<int:user>/", views.change_account, name="change-account"),
    path("audit/", views.audit_log, name="audit-log"),
]
